"""Layout 'taodescribe': Chinese titles with a shopper category and an aspect, and the recommendation text; train.jsonl and val.jsonl."""

from __future__ import annotations

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl
from rgjax.data.records import Controls

CONTROLS = {"audience": [str(i) for i in (*range(15), 16, 17, 25)], "aspect": ["a", "b", "c"]}


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Both control codes are real: which of 18 shopper categories is addressed, and which aspect the text is about."""
    paths = jsonl.named(config.source, {"train.jsonl": "train", "val.jsonl": "val"})
    splits = frozenset(s for _, s in paths)
    return Source(jsonl.chunks(paths, example), splits, jsonl.size(paths), controls or CONTROLS, split_key="title")


def example(line: dict) -> dict:
    """One line as an example."""
    item = {"id": str(jsonl.field(line, "title_id", (int, str))), "title": jsonl.field(line, "title")}
    control = {"audience": jsonl.field(line, "user_category"), "aspect": jsonl.field(line, "aspect")}
    return {"item": item, "control": control, "reason": jsonl.field(line, "reason")}
