"""Shards: ArrayRecord files of examples, one compact JSON text in UTF-8 per record, the same bytes for the same examples."""

from __future__ import annotations

import errno
import hashlib
import pathlib

from array_record.python.array_record_module import ArrayRecordWriter

from rgjax.errors import UserError

# One record per group: random access reads and unpacks one example, not its neighbours.
_OPTIONS = "group_size:1"


class ShardWriter:
    """Writes one split, `per_shard` examples a file, as SPLIT-00000-of-00004.array_record in `folder`."""

    def __init__(self, folder: pathlib.Path, split: str, per_shard: int):
        self.folder, self.split, self.per_shard = folder, split, per_shard
        self.counts: list[int] = []
        self._writer = None

    def write(self, record: bytes) -> None:
        """Appends one record; raises OSError (no space) when the disk is full."""
        if self._writer is None or self.counts[-1] == self.per_shard:
            self._finish()
            self.counts.append(0)
            self._writer = ArrayRecordWriter(str(self._part(len(self.counts) - 1)), _OPTIONS)
        try:
            self._writer.write(record)
        except RuntimeError as error:
            raise _disk_error(error, self.folder) from None
        self.counts[-1] += 1

    def close(self) -> list[dict]:
        """Finishes and names the files; returns {"file", "examples", "bytes", "sha256"} of each."""
        self._finish()
        listed = []
        for i, count in enumerate(self.counts):
            path = self.folder / f"{self.split}-{i:05d}-of-{len(self.counts):05d}.array_record"
            self._part(i).rename(path)
            listed.append({"file": path.name, "examples": count, "bytes": path.stat().st_size, "sha256": file_sha256(path)})
        return listed

    def abandon(self) -> None:
        """Lets go of an open file after a failure, whose own message is the one to show."""
        try:
            self._finish()
        except OSError:
            pass

    def _part(self, i: int) -> pathlib.Path:
        return self.folder / f"{self.split}-{i:05d}.part"

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            except RuntimeError as error:
                raise _disk_error(error, self.folder) from None


def _disk_error(error: RuntimeError, folder: pathlib.Path) -> OSError | UserError:
    """ArrayRecord reports a full disk as a RuntimeError with the system's words in it."""
    text = str(error)
    if "No space left" in text or "Disk quota" in text:
        return OSError(errno.ENOSPC, "No space left on device", str(folder))
    return UserError(f"Writing shards to {folder} failed ({' '.join(text.split())[:200]}); check the disk and run again.")


def file_sha256(path: pathlib.Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
