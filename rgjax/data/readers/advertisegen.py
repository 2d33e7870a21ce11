"""Layout 'advertisegen': attributes of a garment and the shop's Chinese copy; train.jsonl, and dev.jsonl as the published test file."""

from __future__ import annotations

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl
from rgjax.data.records import Controls, RecordError
from rgjax.data.splits import hash64

TITLE = "类型"  # kind of garment; the nearest to a title that the data has
LOST = "<UNK>"  # stands in the published files where a rare word was lost


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """dev.jsonl stays whole as 'test'; with --split_by=source, 'val' is taken out of train by hash of the attributes."""
    paths = jsonl.named(config.source, {"train.jsonl": "train", "dev.jsonl": "test"})
    chunks = (chunk for path in paths for chunk in jsonl.chunks([path], training_example if path[1] == "train" else example))
    return Source(chunks, frozenset(s for _, s in paths), jsonl.size(paths), controls, split_key="item")


def example(line: dict) -> dict:
    """One line as an example; equal attributes are one item, whose id is their hash."""
    content = jsonl.field(line, "content")
    attributes: dict[str, list[str]] = {}
    for pair in content.split("*"):
        name, mark, value = pair.partition("#")
        if not mark:
            raise RecordError(f"'content' has '{pair[:40]}', which is not of the form name#value")
        attributes.setdefault(name, []).append(value)
    item = {"id": f"i{hash64(content):016x}", "title": "".join(attributes.get(TITLE, [])[:1]), "attributes": attributes}
    return {"item": item, "reason": jsonl.field(line, "summary")}


def training_example(line: dict) -> dict:
    """As `example`, with the 2,321 marks of lost words taken out of the reason.

    A model that reads the mark as a word writes it to shoppers. The test file keeps its marks: scores on it are comparable only
    with the references as published.
    """
    made = example(line)
    return made | {"reason": made["reason"].replace(LOST, "")}
