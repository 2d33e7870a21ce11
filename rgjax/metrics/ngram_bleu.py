"""BLEU of each text against many references at once, and of texts against each other, from one table of n-gram counts.

NLTK's `sentence_bleu` counts all references anew for each text, which takes minutes for a thousand of both. The scores are the same.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rgjax.metrics.diversity import ngrams

ORDERS = (2, 3, 4, 5)  # BLEU-2 to BLEU-5
SMOOTH = 0.1  # matches of an order that has none (method 1 of Chen & Cherry 2014, as NLTK)
Tokens = Sequence[str]


def bleu(texts: Sequence[Tokens], references: Sequence[Tokens]) -> np.ndarray:
    """Mean over `texts` of BLEU-2 to BLEU-5 against all `references`, float64 [4] in [0, 1]; zeros where either is empty."""
    table = _Table(references)
    return _mean([table.scores(text) for text in texts])


def self_bleu(texts: Sequence[Tokens]) -> np.ndarray:
    """Mean over `texts` of BLEU-2 to BLEU-5 against all others, float64 [4] in [0, 1]; less is more varied (Zhu et al. 2018, Texygen).

    It grows with the number of texts, so that only pools of one size compare. Zeros for fewer than two.
    """
    table = _Table(texts)
    return _mean([table.scores(text, own=True) for text in texts]) if len(texts) > 1 else np.zeros(len(ORDERS))


def _mean(scores: list[list[float]]) -> np.ndarray:
    return np.mean(scores, axis=0) if scores else np.zeros(len(ORDERS))


class _Table:
    """Of each n-gram how often it stands in the reference that has most of it, and in the one that comes next."""

    def __init__(self, references: Sequence[Tokens]):
        self.most: list[dict[tuple, tuple[int, int]]] = [{} for _ in range(ORDERS[-1])]
        for reference in references:
            for order, most in enumerate(self.most, 1):
                for gram, count in ngrams(reference, order).items():
                    most[gram] = _first_two(*most.get(gram, (0, 0)), count)
        self.lengths = Counter(map(len, references))
        self.sorted = sorted(self.lengths)

    def scores(self, text: Tokens, own: bool = False) -> list[float]:
        """BLEU of each of `ORDERS`; a text that is its `own` reference is left out of them."""
        logs, total = [], 0.0
        for order, most in enumerate(self.most, 1):
            counts = ngrams(text, order)
            found = sum(min(count, _others(most.get(gram, (0, 0)), count, own)) for gram, count in counts.items())
            if order == 1 and not found:
                return [0.0] * len(ORDERS)
            total += math.log((found or SMOOTH) / max(1, counts.total()))
            logs.append(total / order)
        short = min(0.0, 1 - self._closest(len(text), own) / len(text))
        return [math.exp(short + logs[order - 1]) for order in ORDERS]

    def _closest(self, length: int, own: bool) -> int:
        """The reference length nearest to `length`, the lesser of two."""
        if self.lengths[length] > own:
            return length
        at = bisect.bisect_left(self.sorted, length)
        near = self.sorted[max(0, at - 1) : at + 2]
        return min((n for n in near if n != length), key=lambda n: (abs(n - length), n))


def _first_two(first: int, second: int, count: int) -> tuple[int, int]:
    return (count, first) if count > first else (first, max(second, count))


def _others(most: tuple[int, int], count: int, own: bool) -> int:
    """The most of an n-gram in a reference other than the text, which has `count`."""
    return most[1] if own and count == most[0] else most[0]
