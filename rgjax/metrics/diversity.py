"""Diversity of a corpus of outputs: distinct n-grams, unique sentences, repetition inside a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from rgjax.metrics import bootstrap
from rgjax.metrics.bootstrap import LeaveOneOut, Sums


def ngrams(tokens: Sequence[str], order: int) -> Counter:
    """Counts of the n-grams (tuples) of `order` tokens."""
    return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))


def types_ratio(types: Sequence[Iterable[Hashable]], tokens: Sequence[float]) -> LeaveOneOut:
    """Distinct members of all `types` together over the sum of `tokens`.

    types: the things each example holds (repeats do not matter). tokens: how much each example adds to the denominator.
    """
    held = [set(one) for one in types]
    owners = Counter(thing for one in held for thing in one)
    alone = np.array([sum(owners[thing] == 1 for thing in one) for one in held], float)  # lost when the example goes
    sizes = np.asarray(tokens, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = sizes.sum() - sizes
        without = np.where(rest > 0, (len(owners) - alone) / rest, np.nan)
    return LeaveOneOut(len(owners) / sizes.sum() if sizes.sum() else float("nan"), without, most=1.0)


def distinct(outputs: Sequence[Sequence[str]], order: int) -> LeaveOneOut:
    """Distinct n-grams over all n-grams of the tokenized outputs, in [0, 1] (Li et al. 2016)."""
    grams = [ngrams(tokens, order) for tokens in outputs]
    return types_ratio(grams, [gram.total() for gram in grams])


def unique_sentence_ratio(outputs: Sequence[str]) -> LeaveOneOut:
    """USR: distinct whitespace-token sequences over outputs, in [0, 1] (Li et al. 2020, NETE)."""
    return types_ratio([[tuple(text.split())] for text in outputs], np.ones(len(outputs)))


def self_repetition(outputs: Sequence[Sequence[str]], order: int = 4) -> Sums:
    """Mean share of a text's n-grams that repeat an earlier one of the same text, x100 (seq-rep-n, Welleck et al. 2020).

    Texts shorter than `order` tokens count 0.
    """
    grams = [ngrams(tokens, order) for tokens in outputs]
    return bootstrap.mean([1 - len(gram) / gram.total() if gram else 0.0 for gram in grams], 100)
