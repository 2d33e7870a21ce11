"""A dataset folder that launch.prepare wrote, opened for reading."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import SupportsIndex

from array_record.python.array_record_data_source import ArrayRecordDataSource

from rgjax.data.shards import file_sha256
from rgjax.data.splits import SPLITS
from rgjax.errors import UserError

FORMAT = 1  # of the folders of examples and of shops alike


class Source:
    """Random access to the examples of one split, as dicts; what grain calls a data source (processes may each hold a copy)."""

    def __init__(self, folder: pathlib.Path, shards: Sequence[dict]):
        self._names = [str(folder / shard["file"]) for shard in shards]
        self._ends, total = [], 0
        for shard in shards:
            total += shard["examples"]
            self._ends.append(total)
        try:
            self._records = ArrayRecordDataSource(self._names) if shards else ()
        except (RuntimeError, ValueError, OSError):
            raise _unreadable(next((name for name in self._names if not _opens(name)), str(folder))) from None
        if len(self._records) != total:
            raise UserError(f"The shards of {folder} hold {len(self._records)} examples, not {total}; prepare the dataset again.")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> dict:
        """The example at `index`; raises UserError naming the shard when its bytes are damaged."""
        return self._parse(self._read(self._records.__getitem__, index, [index]), index)

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[dict]:
        """Several examples in one read."""
        return [
            self._parse(record, i)
            for record, i in zip(self._read(self._records.__getitems__, indices, indices), indices, strict=True)
        ]

    def __repr__(self) -> str:  # grain compares it when it restores an iterator, so no memory address
        return f"Source({', '.join(pathlib.Path(n).name for n in self._names)})"

    def _read(self, get: Callable, key, indices: Sequence[SupportsIndex]):
        try:
            return get(key)
        except (RuntimeError, IndexError, ValueError):
            if not all(0 <= int(i) < len(self) for i in indices):
                raise IndexError(f"index out of range, the split has {len(self)} examples") from None
            raise self._damaged(indices[0]) from None

    def _damaged(self, index: SupportsIndex) -> UserError:
        return _unreadable(self._shard(index))

    def _parse(self, record: bytes, index: SupportsIndex) -> dict:
        try:
            return json.loads(record)
        except ValueError:
            raise self._damaged(index) from None

    def _shard(self, index: SupportsIndex) -> str:
        return next(name for name, end in zip(self._names, self._ends, strict=True) if int(index) < end)


class Joined:
    """Several sources one after another, as one."""

    def __init__(self, sources: Sequence[Source]):
        self._sources, self._ends = list(sources), list(itertools.accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> dict:
        """The example at `index`, counted through all sources."""
        which = bisect.bisect_right(self._ends, int(index))
        return self._sources[which][int(index) - (self._ends[which] - len(self._sources[which]))]

    def __repr__(self) -> str:
        return f"Joined({self._sources})"


def folders(text: str) -> list[str]:
    """The folders of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


class Dataset:
    """dataset.json and what it lists."""

    def __init__(self, folder: pathlib.Path, manifest: dict, fingerprint: str):
        self.folder, self.manifest, self.fingerprint = folder, manifest, fingerprint
        self.tokenizer_folder = folder / manifest["tokenizer"]["folder"]
        self.controls: dict[str, list[str]] = manifest["controls"]

    @classmethod
    def open(cls, folder: str | pathlib.Path) -> Dataset:
        """Reads dataset.json and checks that every file is there in full size; raises UserError naming what is wrong."""
        folder = pathlib.Path(folder)
        path, (raw, manifest) = folder / "dataset.json", read_manifest(folder)
        if manifest.get("kind") == "shop":
            raise UserError(f"{folder} holds a shop's interactions, not examples of reasons; prepare one with --layout=tables or a public layout.")
        try:
            dataset = cls(folder, manifest, hashlib.sha256(raw).hexdigest())
            check_shards(folder, dataset._shards())
            plain = _is_name(manifest["tokenizer"]["folder"])
        except (KeyError, TypeError, AttributeError):
            plain = False
        if not plain:
            raise UserError(f"{path} is damaged (it lacks a key, or names a folder elsewhere); prepare the dataset again.")
        if not (dataset.tokenizer_folder / "tokenizer.json").is_file():
            raise UserError(f"{dataset.tokenizer_folder} holds no tokenizer.json; prepare the dataset again.")
        return dataset

    @property
    def origin(self) -> str:
        """The fingerprint of the dataset whose training reasons a model wrote anew to make this one; '' where none did."""
        return next((self.manifest[how]["from"] for how in ("filtered", "distilled") if how in self.manifest), "")

    def verify(self) -> None:
        """Reads every byte and compares checksums; raises UserError naming the first file that differs."""
        for shard in self._shards():
            if file_sha256(self.folder / shard["file"]) != shard["sha256"]:
                raise _unreadable(str(self.folder / shard["file"]))

    def count(self, split: str) -> int:
        """Examples in `split`."""
        return self.manifest["counts"].get(split, 0)

    def source(self, split: str) -> Source:
        """Random access to `split`; raises UserError when the dataset has no example of it."""
        if split not in SPLITS or not self.count(split):
            have = ", ".join(s for s in SPLITS if self.count(s))
            raise UserError(f"{self.folder} has no '{split}' examples; it has {have}.")
        return Source(self.folder, self.manifest["splits"][split])

    def examples(self, split: str) -> Iterator[dict]:
        """The examples of `split` in stored order."""
        source = self.source(split)
        for start in range(0, len(source), 256):
            yield from source.__getitems__(range(start, min(start + 256, len(source))))

    def _shards(self) -> Iterator[dict]:
        for listed in self.manifest["splits"].values():
            yield from listed


def read_manifest(folder: pathlib.Path) -> tuple[bytes, dict]:
    """dataset.json as it is and parsed, of whichever kind of dataset; raises UserError when it is missing, damaged or of another format."""
    path = folder / "dataset.json"
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is not a dataset folder (no dataset.json); write one with launch.prepare.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged; prepare the dataset again.") from None
    if type(manifest) is not dict or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not of format {FORMAT}; prepare the dataset again with this version.")
    return raw, manifest


def check_shards(folder: pathlib.Path, shards: Iterable[dict]) -> None:
    """Raises UserError unless the listed files lie in the folder itself, each in full size; KeyError or TypeError when it is no such list."""
    for shard in shards:
        if not _is_name(shard["file"]):
            raise UserError(f"{folder} lists the shard {shard['file']!r}, which is no file name of its own; copy it again or write it again.")
        if not type(shard["bytes"]) is type(shard["examples"]) is int:
            raise TypeError
        check_size(folder / shard["file"], shard["bytes"])


def _is_name(name: object) -> bool:
    """Whether it names something right inside a folder."""
    return isinstance(name, str) and name not in ("", "..") and pathlib.PurePath(name).name == name


def check_size(path: pathlib.Path, size: int) -> None:
    """Raises UserError unless a file is there with so many bytes."""
    if not path.is_file():
        raise UserError(f"{path} is missing; copy it again or prepare the dataset again.")
    if path.stat().st_size != size:
        raise UserError(
            f"{path} has {path.stat().st_size:,} bytes instead of {size:,}; copy it again or prepare the dataset again."
        )


def _opens(name: str) -> bool:
    try:
        ArrayRecordDataSource([name])
    except (RuntimeError, ValueError, OSError):
        return False
    return True


def _unreadable(path: str) -> UserError:
    return UserError(f"{path} is unreadable (its content is damaged); copy it again or prepare the dataset again.")
