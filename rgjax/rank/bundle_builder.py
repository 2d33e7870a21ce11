"""Whole bundles under limits: size, budget, and which items may be in them; a beam search over sets."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_softmax

from rgjax.data.interactions import Interactions, attribute_values
from rgjax.errors import UserError

_ROUNDING = 1e-7  # of a price, which is float32

# Scores of all items [N, I] beside N sets of item numbers.
Scorer = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Limits:
    """A bundle has `size` items of bool `allowed` [I]; with a `budget` above 0 their prices [I] (NaN: unknown, not allowed) sum to it at most."""

    size: int
    allowed: np.ndarray
    prices: np.ndarray
    budget: float = 0.0

    def usable(self) -> np.ndarray:
        """bool [I]: what may be added to a bundle at all."""
        return self.allowed & ~np.isnan(self.prices) if self.budget else self.allowed

    def fits(self, held: np.ndarray, usable: np.ndarray) -> np.ndarray:
        """bool [I]: items that can be added to `held` and leave a bundle that can be finished: the cheapest others still fit the budget."""
        free = usable.copy()
        free[held] = False
        if not self.budget or not free.any():
            return free
        more = self.size - len(held) - 1  # items after this one
        costs = np.where(free, self.prices, np.inf)
        cheapest = np.argsort(costs, kind="stable")[: more + 1]
        after, with_next = costs[cheapest[:more]].sum(), costs[cheapest].sum()
        total = costs + after
        total[cheapest[:more]] = with_next  # of the cheapest themselves, the next one takes the place
        return free & (self.prices[held].sum() + total <= self.budget * (1 + _ROUNDING))


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """Item numbers, those given first, and the sum of the log-probabilities of those added."""

    items: np.ndarray
    score: float


def prices(data: Interactions) -> np.ndarray:
    """float64 [I]: the median price of an item's events, else its attribute 'price'; NaN where neither is known."""
    found = np.full(len(data.items), np.nan)
    for item, attributes in enumerate(data.items.attributes):
        for value in attribute_values(attributes, "price")[:1]:
            with contextlib.suppress(ValueError):
                found[item] = float(value)
    found[np.isinf(found)] = np.nan
    known = np.flatnonzero(~np.isnan(data.price))
    order = known[np.argsort(data.item[known], kind="stable")]
    items, starts = np.unique(data.item[order], return_index=True)
    for item, start, end in zip(items, starts, np.append(starts, len(order))[1:], strict=True):
        found[item] = np.median(data.price[order[start:end]])
    return found


def build(score: Scorer, given: np.ndarray, limits: Limits, beams: int, count: int) -> list[Built]:
    """The best `count` bundles that hold `given`, best first: at each step the item that goes best with the set so far is added.

    An item's probability is the softmax of the scores of all that may be added. A set that is reached in several orders counts once, by its
    best order. Fewer than `count` are given where no more are found. Raises UserError where no bundle meets the limits.
    """
    beams = max(beams, count)
    usable, sets = limits.usable(), [Built(np.asarray(given, int), 0.0)]
    while len(sets[0].items) < limits.size:
        scores, grown = score([found.items for found in sets]), {}
        for found, row in zip(sets, scores, strict=True):
            fitting = np.flatnonzero(limits.fits(found.items, usable))
            gains = log_softmax(np.asarray(row[fitting], float)) if len(fitting) else np.zeros(0)
            for place in np.argsort(-gains, kind="stable")[:beams]:
                made = Built(np.append(found.items, fitting[place]), found.score + float(gains[place]))
                key = frozenset(made.items.tolist())
                if key not in grown or grown[key].score < made.score:
                    grown[key] = made
        if not grown:
            raise UserError(_impossible(limits, given, usable))
        sets = sorted(grown.values(), key=lambda found: -found.score)[:beams]
    return sets[:count]


def _impossible(limits: Limits, given: np.ndarray, usable: np.ndarray) -> str:
    free = usable.copy()
    free[given] = False
    more = limits.size - len(given)
    if free.sum() < more:
        return f"only {int(free.sum())} items may be added to a bundle that lacks {more}; lower --size, or allow more items"
    least = np.sort(limits.prices[free])[:more].sum() + limits.prices[given].sum()
    return f"the cheapest bundle of {limits.size} items costs {least:.2f}, more than --budget={limits.budget:g}; raise it, or lower --size"
