"""Precomputed vectors of shoppers and items (from a recommender, or of text or images), looked up for each example."""

from __future__ import annotations

import collections
import hashlib
import pathlib

import numpy as np
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from rgjax.config import InputConfig
from rgjax.data.shards import file_sha256
from rgjax.errors import UserError


class Vectors:
    """A shopper's vector and the item's, one after the other, as float32 [Z]; `width` is Z.

    A shopper who is in no table of shoppers gets the mean of what their history's items have; what has no vector gets zeros.
    Each table is divided by its root mean square, so that networks begin at unit scale.
    """

    def __init__(self, config: InputConfig, seed: int = 0):
        """Reads --item_vectors and --user_vectors; raises UserError when a file is unusable.

        `config.vectors_as` replaces what is known by nothing ('zero'), by another's vector ('shuffle') or by a fixed random one
        ('random'), which shows what the vectors are worth.
        """
        self.mode, self.paths = config.vectors_as, [p for p in (config.item_vectors, config.user_vectors) if p]
        self.items = _table(config.item_vectors, "item_vectors", config.vectors_as, seed) if config.item_vectors else {}
        self.users = _table(config.user_vectors, "user_vectors", config.vectors_as, seed + 1) if config.user_vectors else {}
        widths = [len(next(iter(table.values()))) for table in (self.users or self.items, self.items) if table]
        self.user_width, self.width = widths[0], sum(widths)
        if self.users and self.items and self.user_width != widths[1]:
            self.fallback = np.zeros(self.user_width, np.float32)
        else:
            self.fallback = None

    def fingerprint(self) -> str:
        """sha256 over the files and over which of them is whose."""
        whose = ("items" if self.items else "") + ("users" if self.users else "")
        return hashlib.sha256("".join([whose, *(file_sha256(pathlib.Path(p)) for p in self.paths)]).encode()).hexdigest()

    def of(self, example: dict) -> np.ndarray:
        """The example's vector, float32 [Z]."""
        parts = [self._user(example)]
        if self.items:
            parts.append(self.items.get(key(example["item"]), np.zeros(self.width - self.user_width, np.float32)))
        return np.concatenate(parts)

    def _user(self, example: dict) -> np.ndarray:
        found = self.users.get(str((example.get("user") or {}).get("id") or ""))
        if found is not None:
            return found
        if self.fallback is not None:
            return self.fallback
        read = [self.items[k] for event in example.get("history") or () if (k := key(event, "item")) in self.items]
        return np.mean(read, axis=0, dtype=np.float32) if read else np.zeros(self.user_width, np.float32)


def key(thing: dict, name: str = "id") -> str:
    """What an item or a history event is called in a table of vectors: its id, or its title where it has none."""
    return str(thing.get(name) or thing.get("title") or "")


def _table(path: str, flag: str, mode: str, seed: int) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path, columns=["id", "vector"])
        ids = [str(i) for i in table["id"].to_pylist()]
        vectors = np.array(table["vector"].to_pylist(), np.float32)
    except FileNotFoundError:
        raise UserError(f"--{flag}={path} is no file; give a Parquet table with columns id and vector.") from None
    except (ArrowInvalid, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"--{flag}={path} is no Parquet table with columns id and vector, all of one length ({str(error)[:80]}).") from None
    if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
        raise UserError(f"--{flag}={path} holds no vectors, or unequal or infinite ones; write finite vectors of one length.")
    if (twice := next((i for i, count in collections.Counter(ids).items() if count > 1), None)) is not None:
        raise UserError(f"--{flag}={path} has the id {twice!r} twice; keep one row for each.")
    vectors = vectors / max(float(np.sqrt(np.mean(np.square(vectors)))), 1e-12)
    rng = np.random.default_rng(seed)
    if mode == "zero":
        vectors = np.zeros_like(vectors)
    elif mode == "shuffle":
        vectors = vectors[rng.permutation(len(vectors))]
    elif mode == "random":
        vectors = rng.standard_normal(vectors.shape, np.float32)
    return dict(zip(ids, vectors, strict=True))
