"""Who is shown, and who is served: exposure of items and of their groups, the gap between groups of users, and honest probabilities.

The exposure of a place is 1 / log2(1 + rank), 0 beyond the list (Singh & Joachims 2018, "Fairness of exposure in rankings").
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from rgjax.errors import UserError
from rgjax.metrics.ranking import discounts


def exposure(lists_UK, items: int) -> np.ndarray:
    """float64 [I]: sum over the lists (item numbers [U, K], best first, -1: no item) of the exposure an item's place has."""
    lists_UK = np.asarray(lists_UK)
    gains_UK, real = np.broadcast_to(discounts(lists_UK.shape[1]), lists_UK.shape), lists_UK >= 0
    return np.bincount(lists_UK[real], gains_UK[real], minlength=items)


def exposure_ratio(exposure_I, first_I, second_I) -> float:
    """Mean exposure of an item of group `first_I` (bool [I]) over that of `second_I`; 1 is demographic parity."""
    first, second = _groups(exposure_I, first_I, second_I)
    return float(np.divide(first, second)) if second else float("nan")


def disparate_treatment(exposure_I, relevance_I, first_I, second_I) -> float:
    """(exposure / relevance of `first_I`) / (the same of `second_I`), each a mean over the group's items; 1 is fair.

    relevance_I: what an item deserves exposure for, for example its held-out events. NaN where a mean that is divided by is 0.
    """
    (shown_1, shown_2), (due_1, due_2) = _groups(exposure_I, first_I, second_I), _groups(relevance_I, first_I, second_I)
    return shown_1 / due_1 / (shown_2 / due_2) if due_1 and due_2 and shown_2 else float("nan")


def _groups(values_I, first_I, second_I) -> tuple[float, float]:
    values_I, masks = np.asarray(values_I, float), [np.asarray(m, bool) for m in (first_I, second_I)]
    if not all(m.any() for m in masks):
        raise UserError("A group of items is empty; its exposure can't be compared.")
    return float(values_I[masks[0]].mean()), float(values_I[masks[1]].mean())


def group_gap(values_U, groups_U: Sequence[Hashable]) -> float:
    """Largest minus smallest group mean of a metric with one value a user; NaN is left out, and a group of nothing else."""
    values_U, sums = np.asarray(values_U, float), {}
    for value, group in zip(values_U, groups_U, strict=True):
        if not np.isnan(value):
            sums.setdefault(group, []).append(value)
    means = [float(np.mean(values)) for values in sums.values()]
    return max(means) - min(means) if means else float("nan")


def brier(probabilities, labels) -> float:
    """Mean squared difference of probabilities and outcomes 0 or 1."""
    return float(((_probabilities(probabilities) - np.asarray(labels, float)) ** 2).mean())


def expected_calibration_error(probabilities, labels, bins: int = 15) -> float:
    """Mean, weighted by size, of |mean probability - share of ones| over `bins` equally wide bins (lower bound excluded; Naeini 2015)."""
    probabilities, labels = _probabilities(probabilities), np.asarray(labels, float)
    number = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(number, probabilities - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _probabilities(values) -> np.ndarray:
    values = np.asarray(values, float)
    if not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise UserError("Probabilities must be numbers between 0 and 1, at least one; apply the sigmoid to scores first.")
    return values
