"""Readers: one module per layout of raw data, each giving rows of examples in a stable order."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol

from rgjax.config import PrepareConfig
from rgjax.data.records import Controls, Row


class Chunk(Protocol):
    """Consecutive rows; it can be sent to another process, where `rows` does the parsing."""

    def rows(self) -> Iterable[Row]: ...


@dataclasses.dataclass(frozen=True)
class RowChunk:
    """Rows that are made already."""

    made: list[Row]

    def rows(self) -> list[Row]:
        """Those rows."""
        return self.made


def in_chunks(rows: Iterable[Row], size: int = 256) -> Iterator[RowChunk]:
    """`rows` in chunks of `size`."""
    rows = iter(rows)
    while made := list(itertools.islice(rows, size)):
        yield RowChunk(made)


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened source: its rows in chunks, the splits its files bring, its size and the control codes its layout declares."""

    chunks: Iterator[Chunk]
    splits: frozenset[str] = frozenset()  # 'train', 'val', 'test' as told by the file names
    size: int = 0  # bytes, for the progress bar; 0 when unknown
    controls: Controls = dataclasses.field(default_factory=dict)
    split_key: str = "user"  # key by which a missing split is taken out of train (--split_by=source)
    synthetic: bool = False
    extras: dict[str, dict] = dataclasses.field(default_factory=dict)  # further JSON files of the dataset folder, by name

    @property
    def rows(self) -> Iterator[Row]:
        """The rows, one by one."""
        for chunk in self.chunks:
            yield from chunk.rows()


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """The source of `config`; raises UserError when files or columns are missing. `scratch` is a folder for temporary files."""
    module = importlib.import_module(f"rgjax.data.readers.{config.layout}" if config.layout != "demo" else "rgjax.data.demo")
    return module.open_source(config, controls, scratch)
