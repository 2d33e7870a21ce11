"""Feature metrics of the explanation literature (Li et al. 2020, NETE): FMR, FCR, DIV.

Here a *feature* is an attribute value of an item or history event. The published metrics match single words; attribute values
can be several, so a feature is found where its tokens follow one another (words for English, characters for Chinese). The
reference's feature f_i is the value of the recommended item's attributes that the reference names first (the longest at a tie);
examples whose reference names none are left out of FMR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from rgjax.metrics import bootstrap, fields, language
from rgjax.metrics.bootstrap import LeaveOneOut, Metric

Feature = tuple[str, ...]


def tokenizer(lang: str) -> Callable[[str], list[str]]:
    """The tokens features are matched in: lower-cased words ('en') or lower-cased characters ('zh')."""
    return language.words if lang == "en" else lambda text: language.characters(text.lower())


def all_features(examples: Sequence[dict], lang: str) -> set[Feature]:
    """Every attribute value of the items and histories of `examples`, tokenized."""
    cut = tokenizer(lang)
    entities = (entity for example in examples for entity in [example.get("item"), *(example.get("history") or [])])
    texts = {value for entity in entities for value in fields.values(entity)}
    return {tuple(cut(text)) for text in texts} - {()}


def found_features(text: str, features: set[Feature], lang: str) -> dict[Feature, int]:
    """Features that occur in `text`, with the token position of their first occurrence."""
    return _search(tokenizer(lang)(text), features, sorted({len(feature) for feature in features}))


def _search(tokens: list[str], features: set[Feature], lengths: list[int]) -> dict[Feature, int]:
    found: dict[Feature, int] = {}
    for length in lengths:
        for start in range(len(tokens) - length + 1):
            gram = tuple(tokens[start : start + length])
            if gram in features:
                found.setdefault(gram, start)
    return found


def reference_feature(example: dict, lang: str) -> Feature | None:
    """f_i: the item's attribute value that the reference names first, or None."""
    own = {tuple(tokenizer(lang)(value)) for value in fields.values(example.get("item"))} - {()}
    found = found_features(fields.reason(example), own, lang)
    return min(found, key=lambda feature: (found[feature], -len(feature)), default=None)


def coverage(found: Sequence[set[Feature]], features: int) -> LeaveOneOut:
    """FCR = |union of F_i| / |F|; |F| belongs to the data set, so that leaving an output out does not change it."""
    owners = Counter(feature for one in found for feature in one)
    alone = np.array([sum(owners[feature] == 1 for feature in one) for one in found], float)
    return LeaveOneOut(len(owners) / features, (len(owners) - alone) / features, most=1.0)


def diversity(found: Sequence[set[Feature]]) -> LeaveOneOut:
    """DIV = 2 / (N (N - 1)) sum over pairs i < j of |F_i and F_j|; lower is more diverse. NaN for fewer than 2 outputs."""
    count = len(found)
    owners = Counter(feature for one in found for feature in one)
    shared = sum(n * (n - 1) / 2 for n in owners.values())
    lost = np.array([sum(owners[feature] - 1 for feature in one) for one in found], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (shared - lost) * 2 / np.float64((count - 1) * (count - 2))
    return LeaveOneOut(shared * 2 / (count * (count - 1)) if count > 1 else float("nan"), without)


def metrics(examples: Sequence[dict], outputs: Sequence[str], lang: str) -> dict[str, Metric]:
    """`fmr` (mean of 1[f_i in F_i]), `fcr` (|union of F_i| / |F|) and `div`; empty when no example has attribute values."""
    features = all_features(examples, lang)
    if not features:
        return {}
    lengths, cut = sorted({len(feature) for feature in features}), tokenizer(lang)
    found = [set(_search(cut(text), features, lengths)) for text in outputs]
    wanted = [reference_feature(example, lang) for example in examples]
    hits = [np.nan if feature is None else float(feature in held) for feature, held in zip(wanted, found, strict=True)]
    return {"fmr": bootstrap.mean(hits), "fcr": coverage(found, len(features)), "div": diversity(found)}
