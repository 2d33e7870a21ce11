"""Layout 'bundle_intents': the intents of a shop's bundles as reasons, from the folder that layout 'bundle_intent' reads.

An example's history is what the bundle holds; its item is the bundle itself, by what people wrote about the most similar train bundles and by the
categories it covers, so a generator of reasons learns what need a bundle serves. People capitalise as they like, so all is in small letters. With
--split_by=item and shares of 0.1 the splits are those of the bundles (`rgjax.data.bundles.Bundles.splits`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rgjax.config import PrepareConfig
from rgjax.data import shops
from rgjax.data.interactions import Catalogue, attribute_values
from rgjax.data.readers import Source, in_chunks
from rgjax.data.records import Controls, Row
from rgjax.data.shops import common
from rgjax.data.similar_bundles import SimilarBundles

_KIND, _MOST_KINDS = "category", 6
SIMILAR = 4  # intents of other bundles that are read


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Raises UserError as the layout of the shop does."""
    folder = pathlib.Path(config.source)
    found = shops.load("bundle_intent", config.source, common.options(max_duplicate_share=1.0))
    items, bundles = found.interactions.items, found.bundles
    stated = [b for b in range(len(bundles)) if bundles.intents[b]]
    similar = SimilarBundles(items, bundles).intents([bundles.members(b) for b in stated], SIMILAR, stated)
    rows = (
        Row(
            example(bundles.members(b).tolist(), items, bundles.ids[b], intents) | {"reason": bundles.intents[b].lower()},
            f"{folder}, bundle {bundles.ids[b]}",
        )
        for b, intents in zip(stated, similar, strict=True)
    )
    return Source(in_chunks(rows), controls=controls, split_key="item")


def example(members: Sequence[int], items: Catalogue, name: str, similar: Sequence[str]) -> dict:
    """A bundle as an example without a reason; `similar` are intents of bundles like it."""
    history = [{"item": items.ids[i], "title": items.titles[i], "attributes": _kinds(items.attributes[i])} for i in members]
    every = [value.lower() for i in members for value in attribute_values(items.attributes[i], _KIND)]
    common_first = sorted(dict.fromkeys(every), key=lambda value: -every.count(value))
    told = {"similar": list(dict.fromkeys(text.lower() for text in similar)), _KIND: common_first[:_MOST_KINDS]}
    return {"history": history, "item": {"id": name, "attributes": {"items": str(len(members))} | {n: v for n, v in told.items() if v}}}


def _kinds(attributes: dict) -> dict:
    """The category alone: whole paths would fill the prompt."""
    return {_KIND: attributes[_KIND]} if _KIND in attributes else {}
