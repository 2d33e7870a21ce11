"""Which split an example belongs to: by hash of a key, so that neither order nor number of rows changes it."""

from __future__ import annotations

import hashlib

from rgjax.config import PrepareConfig
from rgjax.data.records import RecordError

SPLITS = ("train", "val", "test")


def hash64(text: str) -> int:
    """64 bits of BLAKE2b of `text`: the same on every machine and in every run, unlike Python's `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def key_of(example: dict, by: str) -> str:
    """The text whose hash decides; raises RecordError when the example lacks it."""
    if by == "user":
        key = example["user"].get("id")
    elif by == "item":
        key = example["item"].get("id") or example["item"].get("title")
    else:
        key = example["item"].get("title")
    if not key:
        field = {"user": "user.id", "item": "item.id", "title": "item.title"}[by]
        raise RecordError(f"'{field}' is missing, by which the data is to be split (--split_by={by})")
    return key


def by_hash(key: str, val_share: float, test_share: float) -> str:
    """'test', 'val' or 'train', from the hash of `key` alone."""
    place = hash64("split:" + key) / 2**64
    return "test" if place < test_share else "val" if place < test_share + val_share else "train"


class Splitter:
    """Assigns splits under --split_by.

    With 'source' each file's own split stands; only a split that no file brings is taken out of the files' train split, by hash of
    the layout's key (`fallback`).
    """

    def __init__(self, config: PrepareConfig, file_splits: set[str], fallback: str):
        self.by = config.split_by
        self.fallback = fallback
        self.val = config.val_share if self.by != "source" or "val" not in file_splits else 0.0
        self.test = config.test_share if self.by != "source" or "test" not in file_splits else 0.0

    def __call__(self, example: dict, file_split: str | None) -> str:
        """The split of a clean example; raises RecordError when it lacks the key."""
        if self.by == "source":
            if file_split is None:
                raise RecordError("its file names no split (train, val or test), as --split_by=source needs")
            if file_split != "train" or not (self.val or self.test):
                return file_split
        by = self.fallback if self.by == "source" else self.by
        return by_hash(key_of(example, by), self.val, self.test)
