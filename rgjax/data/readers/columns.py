"""One table as rows, streamed from CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rgjax.data.readers import jsonl
from rgjax.data.records import RecordError
from rgjax.errors import UserError

_SUFFIXES = (".csv", ".jsonl", ".parquet")
_BATCH = 4096  # rows of a Parquet file held as Python objects


def table_path(folder: pathlib.Path, name: str, required: bool) -> pathlib.Path | None:
    """The file of table `name`; raises UserError when there are several, or none and it is required."""
    found = [folder / (name + suffix) for suffix in _SUFFIXES if (folder / (name + suffix)).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {found[0].name} and {found[1].name}; keep one of them.")
    if not found and required:
        raise UserError(f"{folder} holds no {name}.csv, {name}.jsonl or {name}.parquet; the table is needed.")
    return found[0] if found else None


def read_table(path: pathlib.Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    """(row number from 1, row) with None for empty cells; raises UserError for a missing column or an unreadable file.

    A table joins with others, so unlike a file of examples it may have no malformed row at all.
    """
    read = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix]
    yield from read(path, needed)


def _need(path: pathlib.Path, columns: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise UserError(
            f"{path} lacks the column '{missing[0]}'; it has {', '.join(map(str, columns)) or 'none'}: rename or add it."
        )


def _csv(path: pathlib.Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(jsonl.LONGEST_LINE)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            _need(path, header, needed)
            for number, cells in enumerate(reader, 1):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num} has {len(cells)} cells instead of {len(header)}; quote cells with commas."
                    )
                yield number, {name: cell if cell != "" else None for name, cell in zip(header, cells, strict=True)}
        except UnicodeDecodeError:
            raise UserError(
                f"{path} is not UTF-8 (after line {reader.line_num}); convert it, e.g. with iconv -t UTF-8."
            ) from None
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num} is not CSV ({error}); mend its quotes.") from None


def _jsonl(path: pathlib.Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    for number, line in jsonl.lines(path):
        try:
            value = jsonl.parse(line)
        except RecordError as error:
            raise UserError(f"{path}, line {number}: {error}; mend the line.") from None
        if type(value) is not dict:
            raise UserError(f"{path}, line {number} is not a JSON object; mend the line.")
        _need(path, list(value), needed)
        yield number, value


def _parquet(path: pathlib.Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict]]:
    try:
        with pq.ParquetFile(path) as file:
            _need(path, file.schema_arrow.names, needed)
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _cell(cell) for name, cell in row.items()}
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]}); write it again.") from None


def _cell(value):
    return None if isinstance(value, float) and math.isnan(value) else value  # NaN is pandas' empty cell
