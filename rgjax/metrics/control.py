"""Texts written on request: how usual and how varied they are, and how often what was asked for was judged to be there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rgjax.metrics import bootstrap, diversity, ngram_bleu
from rgjax.metrics.judge import confusion
from rgjax.metrics.outside import Ngrams

MOST_SELF = 50  # texts of a class that self-BLEU, which grows with their number, compares
MET = {True: "met", False: "short", None: "-"}  # an aim, as it is shown
COLUMNS = {
    "perplexity": "under trigrams fitted on reference reasons, per token, less is more usual",
    "distinct_1": "distinct tokens over all tokens, 0..1 (Li et al. 2016)",
    "distinct_2": "distinct token pairs over all token pairs, 0..1",
    "distinct_3": "distinct token triples over all token triples, 0..1",
    "self_bleu": "mean BLEU-4 of each text with the others as references, x100, less is more varied (Zhu et al. 2018, Texygen)",
}


def described(texts: Sequence[Sequence[str]], outside: Ngrams) -> dict[str, float | None]:
    """The `COLUMNS` of tokenized texts, None where they are undefined, and `texts`, how many they are."""
    found = {"texts": len(texts), "perplexity": bootstrap.number(outside.perplexity(texts))}
    found |= {f"distinct_{n}": bootstrap.number(diversity.distinct(texts, n).value) for n in (1, 2, 3)}
    return found | {"self_bleu": self_bleu(texts)}


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Over the first `MOST_SELF` texts; 0 for fewer than two. Smoothed as NLTK's method 1, or a short text would count 0."""
    return 100 * float(ngram_bleu.self_bleu(texts[:MOST_SELF])[ngram_bleu.ORDERS.index(4)])


def agreement(asked: Sequence[str], judged: Sequence[str], labels: Sequence[str]) -> dict:
    """{"share", "recall", "confusion"}: of all texts, per class (of what was asked, how much was judged so), and counts [asked][judged] over
    `labels`; a class that nobody asked for has the recall None."""
    table = confusion(asked, judged, labels)
    right = [row[i] for i, row in enumerate(table)]
    recall = {label: hit / sum(row) if sum(row) else None for label, hit, row in zip(labels, right, table, strict=True)}
    return {"share": sum(right) / len(asked) if asked else None, "recall": recall, "confusion": table}


def intervals(judged: Sequence[str], labels: Sequence[str], resamples: int) -> dict[str, list[float]]:
    """95 % intervals [low, high] of how much is judged as it was asked for, per class, and of all classes under "".

    `judged` holds the texts of the first class for each input, then those of the next; inputs are resampled, each with its texts of all classes.
    """
    right_CN = np.array(judged).reshape(len(labels), -1) == np.array(labels)[:, None]
    shares = {"": bootstrap.mean(right_CN.mean(0))} | {label: bootstrap.mean(right) for label, right in zip(labels, right_CN, strict=True)}
    return {name: [one["low"], one["high"]] for name, one in bootstrap.intervals(shares, resamples).items()}


def shown(value: float | None, form: str) -> str:
    """A number, or "-" where it is undefined."""
    return "-" if value is None else format(value, form)


def span(ends: list[float] | None, form: str) -> str:
    """[low, high], or "-" where there is none."""
    return "-" if ends is None else f"[{shown(ends[0], form)}, {shown(ends[1], form)}]"
