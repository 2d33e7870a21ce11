"""Minimum Bayes risk: of many samples keep the one most like the others (Kumar & Byrne 2004), grounded ones first.

Agreement of two texts is the mean of ROUGE-L F and bigram F over their words (characters, for Chinese). Grounding adds
what the caller can check in the input: a title of the history named, attribute values copied, no invented title quoted.
"""

from __future__ import annotations

import re
from collections import Counter

from rgjax.data.scripts import GLYPHS
from rgjax.data.slots import quoted_spans, title_key
from rgjax.data.template import attribute_values

_WORD = re.compile(rf"[a-z0-9]+|[{GLYPHS}]")


def words(text: str) -> list[str]:
    """Lower-cased Latin words and single Chinese characters."""
    return _WORD.findall(text.lower())


def lcs(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, with one big integer per row (Hyyrö 2004, bit-parallel)."""
    masks: dict[str, int] = {}
    for i, w in enumerate(a):
        masks[w] = masks.get(w, 0) | (1 << i)
    full = (1 << len(a)) - 1
    row = full
    for w in b:
        match = row & masks.get(w, 0)
        row = ((row + match) | (row - match)) & full
    return len(a) - row.bit_count()


def agreement(texts: list[str]) -> list[float]:
    """Mean agreement of each text with all the others, between 0 and 1."""
    tokens = [words(t) for t in texts]
    pairs = [Counter(zip(t, t[1:], strict=False)) for t in tokens]
    sums = [0.0] * len(texts)
    for i in range(len(texts)):
        for j in range(i):
            total = len(tokens[i]) + len(tokens[j])
            bigrams = sum(pairs[i].values()) + sum(pairs[j].values())
            like = 2 * lcs(tokens[i], tokens[j]) / total if total else 1.0
            like += 2 * sum((pairs[i] & pairs[j]).values()) / bigrams if bigrams else 0.0
            sums[i] += like / 2
            sums[j] += like / 2
    return [s / max(1, len(texts) - 1) for s in sums]


def grounding(text: str, example: dict) -> float:
    """+1 for naming a title of the history, + the share of item attribute values copied, -1 per invented quoted title."""
    history = [e.get("title") or "" for e in example.get("history") or []]
    known = {title_key(t) for t in [*history, example["item"].get("title") or ""]}
    values = {v for _, v in attribute_values(example["item"].get("attributes")) if len(v) > 1}
    named = any(len(t) >= 3 and t in text for t in history)
    copied = sum(v.lower() in text.lower() for v in values) / len(values) if values else 0.0
    invented = sum(title_key(q) not in known for q in quoted_spans(text))
    return float(named) + copied - invented


def best_first(texts: list[str], example: dict, ground_weight: float) -> list[int]:
    """Indices of candidate texts, the best first; equal texts count as votes for one another."""
    scores = agreement(texts)
    if ground_weight:
        scores = [s + ground_weight * grounding(t, example) for s, t in zip(scores, texts, strict=True)]
    return sorted(range(len(texts)), key=lambda i: (-scores[i], i))
