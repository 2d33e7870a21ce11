"""JSON lines, read one line at a time; the base of every layout that keeps examples in such files."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from rgjax.data.records import RecordError, Row
from rgjax.errors import UserError

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
LONGEST_LINE = 1 << 24  # bytes; a longer line is no example, and reading on would take unbounded memory
_CHUNK_BYTES = 1 << 19


def files(source: str, suffix: str = ".jsonl") -> list[pathlib.Path]:
    """The file itself, or the folder's files with `suffix` by name; raises UserError when there is none."""
    path = pathlib.Path(source)
    if not path.exists():
        raise UserError(f"--source={source} does not exist; give the folder or file with the raw data.")
    found = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix == suffix and p.is_file())
    if not found:
        raise UserError(f"--source={source} holds no {suffix} file; give the folder or file with the raw data.")
    return found


def split_of(path: pathlib.Path) -> str | None:
    """The split a file's name tells: 'train.jsonl', 'dev.jsonl', 'test-00001.jsonl'; None when it tells none."""
    stem = path.stem.lower()
    return _SPLIT_NAMES.get(stem) or _SPLIT_NAMES.get(stem.replace("_", "-").split("-")[0])


def lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each line that is not blank."""
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                raise UserError(
                    f"{path}, line {number} is longer than {LONGEST_LINE >> 20} MB; write one example per line (JSON lines)."
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line and not line.isspace():
                yield number, line


def parse(line: bytes) -> Any:
    """The JSON value of a line; raises RecordError when it is not UTF-8 or not JSON."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordError(f"byte {error.start + 1} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"it is not JSON ({_first(error)})") from None


def asked(path: str, of: str) -> Iterator[tuple[str, Any]]:
    """('FILE, line N', the JSON value) of each line of an --input file; raises UserError when it is no file, says nothing, or is no JSON.

    `of` says what its lines are, for the error.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"--input={path} is no file; give JSON lines of {of}.")
    empty = True
    for number, raw in lines(pathlib.Path(path)):
        empty, where = False, f"{path}, line {number}"
        try:
            value = parse(raw)
        except RecordError as error:
            raise UserError(f"{where}: {error}.") from None
        yield where, value
    if empty:
        raise UserError(f"--input={path} has no line; give JSON lines of {of}.")


@dataclasses.dataclass(frozen=True)
class LineChunk:
    """Consecutive lines of a file, not yet parsed: what one worker takes at a time."""

    file: str
    split: str | None
    lines: list[tuple[int, bytes]]
    convert: Callable[[dict], dict]  # a module's function, so that it travels to another process by name

    def rows(self) -> Iterator[Row]:
        """A row for every line."""
        for number, line in self.lines:
            example, problem = None, None
            try:
                example = self.convert(parse(line))
            except RecordError as error:
                problem = error
            yield Row(example, f"{self.file}, line {number}", self.split, len(line), problem)


def chunks(paths: list[tuple[pathlib.Path, str | None]], convert: Callable[[dict], dict]) -> Iterator[LineChunk]:
    """Every line of `paths`, each (file, split), in order; `convert` turns a parsed line into an example."""
    for path, split in paths:
        taken, size = [], 0
        for number, line in lines(path):
            taken.append((number, line))
            size += len(line)
            if size > _CHUNK_BYTES:
                yield LineChunk(path.name, split, taken, convert)
                taken, size = [], 0
        if taken:
            yield LineChunk(path.name, split, taken, convert)


def field(line: dict, name: str, kind: type | tuple[type, ...] = str):
    """A field of a public layout's line; raises RecordError when it is missing or of another type."""
    if type(line) is not dict:
        raise RecordError("it is not a JSON object")
    if name not in line:
        raise RecordError(f"'{name}' is missing; the line has {', '.join(list(line)[:12]) or 'nothing'}")
    if not isinstance(line[name], kind):
        raise RecordError(f"'{name}' has the wrong type")
    return line[name]


def size(paths: list[tuple[pathlib.Path, str | None]]) -> int:
    """Bytes of the files together."""
    return sum(path.stat().st_size for path, _ in paths)


def named(source: str, names: dict[str, str]) -> list[tuple[pathlib.Path, str]]:
    """The files of a public layout, (file, split); a missing one is fine as long as one is there."""
    folder = pathlib.Path(source)
    if not folder.is_dir():
        raise UserError(f"--source={source} is not a folder; give the one that holds {' and '.join(names)}.")
    found = [(folder / name, split) for name, split in names.items() if (folder / name).is_file()]
    if not found:
        raise UserError(f"--source={source} holds none of {', '.join(names)}; give the folder of this layout.")
    return found


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
