"""Layout 'xrec': user and book profiles and an explanation of the purchase; train.jsonl and val.jsonl, split by user."""

from __future__ import annotations

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl
from rgjax.data.records import Controls


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """A published model's output in val (`xrec_pred`) is left out: it is an answer, not an input."""
    paths = jsonl.named(config.source, {"train.jsonl": "train", "val.jsonl": "val"})
    return Source(jsonl.chunks(paths, example), frozenset(s for _, s in paths), jsonl.size(paths), controls)


def example(line: dict) -> dict:
    """One line as an example; the history is known by ids alone."""
    ids = jsonl.field(line, "history_iids", list)
    return {
        "user": {"id": str(jsonl.field(line, "uid", (int, str))), "profile": jsonl.field(line, "user_profile")},
        "history": [{"item": str(i)} for i in ids],
        "item": {
            "id": str(jsonl.field(line, "iid", (int, str))),
            "title": jsonl.field(line, "title"),
            "description": jsonl.field(line, "item_profile"),
        },
        "reason": jsonl.field(line, "explanation"),
    }
