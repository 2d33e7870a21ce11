"""A folder of a teacher's probabilities: at every target token of every training example its K highest logits, by example number.

teacher.json says whose they are and how the examples were read; the shards hold one record an example, arrays one after another:

    targets  uint16 or int32 [n]         the target tokens, as a check
    ids      uint16 or int32 [n, K]      the teacher's likeliest tokens, best first
    logits   float16 [n, K + S]          their logits less the highest, and for each of S temperatures T
                                         log(sum of exp((logit - highest) / T) over all other tokens)

In a batch they are `teacher_ids` int32 [rows, T, K] and `teacher_logits` float16 [rows, T, K + 1] (with the column of one temperature),
zeros where there is no target.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np

from rgjax.data.dataset import Dataset, Source, check_shards
from rgjax.errors import UserError

MANIFEST = "teacher.json"
FIELDS = ("teacher_ids", "teacher_logits")
_FORMAT = 1
_KINDS = {
    "temperatures": list, "shards": list, "rendering": dict, "top": int, "id_type": str, "dataset_fingerprint": str, "tokenizer_sha256": str,
}  # fmt: skip
_LEAST = -60_000.0  # within float16; no probability is left there


class Record(NamedTuple):
    """One example's arrays, as above."""

    targets: np.ndarray
    ids: np.ndarray
    logits: np.ndarray

    def encode(self, id_type: str) -> bytes:
        """As it is stored, with ids of `id_type`."""
        logits = np.maximum(self.logits, _LEAST).astype("<f2")
        return self.targets.astype(id_type).tobytes() + self.ids.astype(id_type).tobytes() + logits.tobytes()

    @classmethod
    def decode(cls, record: bytes, top: int, temperatures: int, id_type: str) -> Record:
        """The inverse of `encode`; raises ValueError when the bytes are no whole record."""
        size = np.dtype(id_type).itemsize
        n, left = divmod(len(record), (1 + top) * size + 2 * (top + temperatures))
        if left:
            raise ValueError
        ids = np.frombuffer(record, id_type, n * (1 + top)).astype(np.int32)
        logits = np.frombuffer(record, "<f2", offset=n * (1 + top) * size)
        return cls(ids[:n], ids[n:].reshape(n, top), logits.reshape(n, top + temperatures))


def id_type(vocab_size: int) -> str:
    """How ids of a vocabulary are stored."""
    return "<u2" if vocab_size <= 1 << 16 else "<i4"


def _whole(manifest: dict) -> bool:
    """Whether every key of teacher.json is there, of its type and in this format."""
    kinds = all(type(manifest[name]) is kind for name, kind in _KINDS.items())
    known = manifest["format"] == _FORMAT and manifest["id_type"] in ("<u2", "<i4") and manifest["top"] > 0
    return kinds and known and all(type(t) in (int, float) for t in manifest["temperatures"])


class TeacherLogits:
    """teacher.json and what it lists, for one of its temperatures."""

    def __init__(self, folder: pathlib.Path, manifest: dict, column: int, fingerprint: str):
        self.folder, self.manifest, self.column, self.fingerprint = folder, manifest, column, fingerprint

    @classmethod
    def open(cls, folder: str | pathlib.Path, temperature: float) -> TeacherLogits:
        """Raises UserError when the folder is damaged, or does not hold the temperature."""
        folder = pathlib.Path(folder)
        try:
            raw = (folder / MANIFEST).read_bytes()
            manifest = json.loads(raw)
            held = manifest["temperatures"] if _whole(manifest) else None
            check_shards(folder, manifest["shards"] if held else ())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"--distill={folder} holds no {MANIFEST}; write it with launch.distill --logits.") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            held = None
        if not held:
            raise UserError(f"{folder}/{MANIFEST} is damaged or of another version; write it again with launch.distill --logits.")
        if temperature not in held:
            listed = ", ".join(f"{t:g}" for t in held)
            raise UserError(f"--distill_temperature={temperature:g} is not held by {folder}, which has {listed}; take one of these.")
        return cls(folder, manifest, held.index(temperature), hashlib.sha256(raw).hexdigest())

    def check(self, dataset: Dataset, rendering: dict) -> None:
        """Raises UserError unless these are probabilities at the target tokens of `dataset`, read by `rendering`."""
        again = "write them again with launch.distill --logits"
        if self.manifest["tokenizer_sha256"] != dataset.manifest["tokenizer"]["sha256"]:
            raise UserError(f"The teacher of --distill={self.folder} has another tokenizer than --dataset={dataset.folder}; take one with the same.")
        if self.manifest["dataset_fingerprint"] != dataset.fingerprint:
            raise UserError(f"--distill={self.folder} is of another dataset than --dataset={dataset.folder}; {again} --dataset={dataset.folder}.")
        for name, value in (self.manifest["rendering"] | {n: None for n in rendering if n not in self.manifest["rendering"]}).items():
            if rendering.get(name) != value:
                flag = "--length (less --target_length)" if name == "prompt_tokens" else f"--{name}"
                raise UserError(f"--distill={self.folder} was computed with {flag} {value}, not {rendering.get(name)}; give the same, or {again}.")

    def beside(self, examples: Source) -> Taught:
        """The examples, each with its record."""
        return Taught(examples, _Records(self))


class _Records(Source):
    """Random access to the records."""

    def __init__(self, teacher: TeacherLogits):
        super().__init__(teacher.folder, teacher.manifest["shards"])
        m = teacher.manifest
        self._layout, self._columns = (m["top"], len(m["temperatures"]), m["id_type"]), [*range(m["top"]), m["top"] + teacher.column]

    def _parse(self, record: bytes, index: SupportsIndex) -> Record:
        found = self._decoded(record, index)
        return found._replace(logits=found.logits[:, self._columns])

    def _decoded(self, record: bytes, index: SupportsIndex) -> Record:
        try:
            return Record.decode(record, *self._layout)
        except ValueError:
            raise self._damaged(index) from None


class Taught:
    """Examples that carry a teacher's record under "teacher"; a data source as theirs is."""

    def __init__(self, examples: Source, records: Source):
        self._examples, self._records = examples, records

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: SupportsIndex) -> dict:
        return self._examples[index] | {"teacher": self._records[index]}

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[dict]:
        both = zip(self._examples.__getitems__(indices), self._records.__getitems__(indices), strict=True)
        return [example | {"teacher": record} for example, record in both]

    def __repr__(self) -> str:  # grain compares it when it restores an iterator
        return f"Taught({self._examples}, {self._records})"


def aligned(example: dict, targets_T: np.ndarray, weights_T: np.ndarray) -> dict[str, np.ndarray]:
    """`FIELDS` of one example [T, ...], its record's rows at the target tokens; {} where it has none.

    Raises UserError when the target tokens are not those that the teacher read.
    """
    if "teacher" not in example:
        return {}
    record, at = example["teacher"], weights_T > 0
    if not np.array_equal(targets_T[at], record.targets):
        raise UserError("--distill holds probabilities at other target tokens than the model reads; write them again with launch.distill --logits.")
    out = {}
    for name, values, kind in zip(FIELDS, (record.ids, record.logits), (np.int32, np.float16), strict=True):
        out[name] = np.zeros((len(targets_T), values.shape[1]), kind)
        out[name][at] = values
    return out
