"""Layout 'examples': JSON lines of whole examples (see records), one file or a folder of *.jsonl files."""

from __future__ import annotations

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl
from rgjax.data.records import Controls


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Rows as they stand in the files; names such as train.jsonl or dev.jsonl tell the split for --split_by=source."""
    paths = [(path, jsonl.split_of(path)) for path in jsonl.files(config.source)]
    splits = frozenset(split for _, split in paths if split)
    return Source(jsonl.chunks(paths, example), splits, jsonl.size(paths), controls)


def example(line: dict) -> dict:
    """A line is the example itself."""
    return line
