"""What lists do to the catalogue: how much of it is shown, how evenly, how popular, how diverse, and how true to a user's tastes.

`lists_UK` int [U, K] are item numbers, best first, -1 where a list is shorter; `counts_I` are the items' events in training. System-wide
figures are floats; those of one list are float64 [U], NaN where they are undefined, ready for `ranking.means`.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence, Set

import numpy as np

from rgjax.errors import UserError
from rgjax.metrics.ranking import discounts


def recommended(lists_UK, items: int) -> np.ndarray:
    """int64 [I]: in how many lists each item is."""
    lists_UK = np.asarray(lists_UK)
    return np.bincount(lists_UK[lists_UK >= 0], minlength=items)


def coverage(lists_UK, items: int) -> float:
    """Share of the catalogue that is in at least one list."""
    return float((recommended(lists_UK, items) > 0).mean())


def gini(lists_UK, items: int) -> float:
    """Gini index of `recommended`, items in no list included as zeros: 0 all alike, near 1 all lists are the same few items."""
    counts = np.sort(recommended(lists_UK, items))
    if not counts.sum():
        return float("nan")
    weights = 2.0 * np.arange(1, items + 1) - items - 1
    return float(weights @ counts / (items * counts.sum()))


def entropy(lists_UK, items: int) -> float:
    """Shannon entropy in nats of which item a random place of a random list holds; ln I at most."""
    counts = recommended(lists_UK, items)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum()) if len(shares) else float("nan")


def novelty(lists_UK, counts_I, users: int) -> np.ndarray:
    """float64 [U]: mean of -log2(count / users) over a list; an item without events counts as one with one event."""
    return _mean_of(lists_UK, -np.log2(np.maximum(np.asarray(counts_I), 1) / users))


def average_popularity(lists_UK, counts_I) -> np.ndarray:
    """float64 [U]: mean training count of the items of a list."""
    return _mean_of(lists_UK, np.asarray(counts_I, float))


def tail(counts_I, share: float = 0.1) -> np.ndarray:
    """bool [I]: the `share` least popular of the items with events (rounded down; at equal counts the lower number), as RecBole has it."""
    counts_I = np.asarray(counts_I)
    seen = np.flatnonzero(counts_I > 0)
    found = np.zeros(len(counts_I), bool)
    found[seen[np.argsort(counts_I[seen], kind="stable")[: int(len(seen) * share)]]] = True
    return found


def tail_percentage(lists_UK, counts_I, share: float = 0.1) -> np.ndarray:
    """float64 [U]: share of a list that is in the `tail`."""
    return _mean_of(lists_UK, tail(counts_I, share).astype(float))


def popularity_lift(lists_UK, histories: Sequence[np.ndarray], counts_I) -> float:
    """(GAP of the lists - GAP of the histories) / GAP of the histories (Abdollahpouri et al. 2019).

    GAP is the mean over users of the mean training count of their items; 0 is as popular as what they took before, NaN where nobody has both.
    """
    counts_I = np.asarray(counts_I, float)
    shown_U = _mean_of(lists_UK, counts_I)
    taken_U = np.array([counts_I[np.asarray(h, int)].mean() if len(h) else np.nan for h in histories])
    both = ~np.isnan(shown_U) & ~np.isnan(taken_U)
    taken = taken_U[both].mean() if both.any() else 0.0
    return float(shown_U[both].mean() / taken - 1) if taken else float("nan")


def attribute_diversity(lists_UK, attributes: Sequence[Set[Hashable]]) -> np.ndarray:
    """float64 [U]: 1 - mean Jaccard overlap of the attribute sets of a list's pairs of items; two empty ones overlap by 0. NaN below two items."""
    found = np.full(len(lists_UK), np.nan)
    for u, one in enumerate(np.asarray(lists_UK)):
        pairs = list(itertools.combinations([attributes[i] for i in one[one >= 0]], 2))
        if pairs:
            found[u] = 1 - np.mean([len(a & b) / max(len(a | b), 1) for a, b in pairs])
    return found


def categories(attributes: Sequence[Mapping], name: str) -> tuple[list[str], np.ndarray]:
    """(the values of attribute `name`, p(c|i) float64 [I, C]: an item's values share 1 evenly; zeros where it has none)."""
    lists = [_values(one.get(name)) for one in attributes]
    names = sorted({value for one in lists for value in one})
    number, shares_IC = {value: c for c, value in enumerate(names)}, np.zeros((len(lists), len(names)))
    for i, one in enumerate(lists):
        for value in one:
            shares_IC[i, number[value]] += 1 / len(one)
    return names, shares_IC


def _values(value) -> list[str]:
    return [] if value is None else [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def miscalibration(lists_UK, histories: Sequence[np.ndarray], shares_IC, weights: Sequence[np.ndarray] | None = None, a: float = 0.01) -> np.ndarray:
    """float64 [U]: KL(p || (1 - a) q + a p) in nats; 0 when a list has the mix of categories that the history has (Steck 2018).

    p(c) is the mean of `shares_IC` over the history, with the `weights` of its events (1 each if None); q(c) that of the list, weighted by
    1 / log2(1 + rank). Items without category are left out; NaN where a history has none. Raises UserError unless 0 < a < 1.
    """
    if not 0 < a < 1:
        raise UserError(f"a={a} must lie between 0 and 1; 0.01 is usual.")
    lists_UK, shares_IC, found = np.asarray(lists_UK), np.asarray(shares_IC, float), np.full(len(lists_UK), np.nan)
    gains = discounts(lists_UK.shape[1])
    for u, one in enumerate(lists_UK):
        history = np.asarray(histories[u], int)
        p_C = _mix(shares_IC[history], np.ones(len(history)) if weights is None else np.asarray(weights[u], float))
        q_C = _mix(shares_IC[one[one >= 0]], gains[one >= 0])
        if (has := p_C > 0).any():
            found[u] = (p_C[has] * np.log(p_C[has] / ((1 - a) * q_C[has] + a * p_C[has]))).sum()
    return found


def _mix(shares_NC: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """The weighted mean of the rows that hold something, zeros if none does."""
    weights_N = weights_N * (shares_NC.sum(axis=1) > 0)
    return weights_N @ shares_NC / (weights_N.sum() or 1.0)


def _mean_of(lists_UK, values_I: np.ndarray) -> np.ndarray:
    lists_UK = np.asarray(lists_UK)
    real = lists_UK >= 0
    sums, sizes = np.where(real, values_I[lists_UK], 0.0).sum(axis=1), real.sum(axis=1)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)
