"""Readers: one module per layout of raw data, each giving rows of examples in a stable order."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator

from rgjax.config import PrepareConfig
from rgjax.data.records import Controls, Row


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened source: its rows, the splits its files bring, its size and the control codes its layout declares."""

    rows: Iterator[Row]
    splits: frozenset[str] = frozenset()  # 'train', 'val', 'test' as told by the file names
    size: int = 0  # bytes, for the progress bar; 0 when unknown
    controls: Controls = dataclasses.field(default_factory=dict)
    split_key: str = "user"  # key by which a missing split is taken out of train (--split_by=source)
    synthetic: bool = False
    extras: dict[str, dict] = dataclasses.field(default_factory=dict)  # further JSON files of the dataset folder, by name


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """The source of `config`; raises UserError when files or columns are missing. `scratch` is a folder for temporary files."""
    module = importlib.import_module(f"rgjax.data.readers.{config.layout}" if config.layout != "demo" else "rgjax.data.demo")
    return module.open_source(config, controls, scratch)
