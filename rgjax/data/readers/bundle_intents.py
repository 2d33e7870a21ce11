"""Layout 'bundle_intents': the intents of a shop's bundles as reasons, from the folder that layout 'bundle_intent' reads.

An example's history is what the bundle holds and its item is the bundle itself, by the categories it covers, so a generator of reasons learns
what need a bundle serves. With --split_by=item and shares of 0.1 the splits are those of the bundles (`rgjax.data.bundles.Bundles.splits`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rgjax.config import PrepareConfig
from rgjax.data.interactions import Catalogue, attribute_values
from rgjax.data.readers import Source, in_chunks
from rgjax.data.records import Controls, Row
from rgjax.data.shops import bundle_intent, common

_KIND = "category"


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Raises UserError as the layout of the shop does."""
    folder = pathlib.Path(config.source)
    found = bundle_intent.load(folder, common.options(max_duplicate_share=1.0))
    items, bundles = found.interactions.items, found.bundles
    rows = (
        Row(example(bundles.members(b).tolist(), items, bundles.ids[b]) | {"reason": bundles.intents[b]}, f"{folder}, bundle {bundles.ids[b]}")
        for b in range(len(bundles))
        if bundles.intents[b]
    )
    return Source(in_chunks(rows), controls=controls, split_key="item")


def example(members: Sequence[int], items: Catalogue, name: str) -> dict:
    """A bundle as an example without a reason."""
    history = [{"item": items.ids[i], "title": items.titles[i], "attributes": kinds(items.attributes[i])} for i in members]
    every = [value for i in members for value in attribute_values(items.attributes[i], _KIND)]
    common_first = sorted(dict.fromkeys(every), key=lambda value: -every.count(value))
    return {"history": history, "item": {"id": name, "attributes": {_KIND: common_first} if every else {"items": [str(len(members))]}}}


def kinds(attributes: dict) -> dict:
    """The category alone: whole paths would fill the prompt."""
    return {_KIND: attributes[_KIND]} if _KIND in attributes else {}
