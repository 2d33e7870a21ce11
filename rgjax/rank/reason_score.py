"""How well written reasons stand for the items they recommend: a score that a list can be told, or ranked, by.

A reason that any item could carry says nothing for its own, so words count by how few of the reasons scored together use them (inverse document
frequency, Spärck Jones 1972): "you will like" counts next to nothing in a list where each reason says so. Of what is left, the score is the share
that is grounded: found in what is said of the item and of the events that the reason was written from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rgjax.rank.content import terms


def grounded(reasons: Sequence[str], sources: Sequence[str]) -> list[float]:
    """Of each reason, from 0 to 1, the weighted share of its words that its source holds; 0 for a reason without words.

    `sources` are, one a reason, the texts that it may speak from: title and attributes of the item and of the evidence. Words are those of
    `rgjax.rank.content.terms` (of Chinese, characters and pairs of them), each counted once a reason; the weight of a word is
    log((1 + reasons) / (1 + reasons that use it)) + 1 / (1 + reasons).
    """
    said = [set(terms(reason, {})) for reason in reasons]
    used = Counter(word for words in said for word in words)
    count = len(said)
    weight = {word: math.log((1 + count) / (1 + times)) + 1 / (1 + count) for word, times in used.items()}
    found = []
    for words, source in zip(said, sources, strict=True):
        held, total = words & set(terms(source, {})), sum(weight[word] for word in sorted(words))
        found.append(sum(weight[word] for word in sorted(held)) / total if total else 0.0)
    return found


def source(item: dict, evidence: Sequence[dict]) -> str:
    """What a reason may speak from: "title" and the values of "attributes" of the item and of each event of the evidence, as one text."""
    texts = []
    for told in (item, *evidence):
        values = [v for value in (told.get("attributes") or {}).values() for v in (value if isinstance(value, list) else [value])]
        texts += [told.get("title") or "", *map(str, values)]
    return "\n".join(texts)
