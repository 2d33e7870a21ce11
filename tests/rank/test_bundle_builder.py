"""Bundles under limits: the beam search and its budget bound against all sets there are."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from rgjax.data.interactions import Catalogue, build
from rgjax.errors import UserError
from rgjax.rank import bundle_builder
from rgjax.rank.bundle_builder import Limits

ITEMS = 7
COSTS = st.one_of(st.just(math.nan), st.integers(-2, 12).map(lambda n: n / 4))


def brute_fits(limits: Limits, held: list[int]) -> set[int]:
    """Items that are in some set of the right size which holds `held` and costs no more than the budget."""
    usable = [i for i in range(len(limits.allowed)) if limits.allowed[i] and not (limits.budget and math.isnan(limits.prices[i])) and i not in held]
    whole = [(*held, *more) for more in itertools.combinations(usable, limits.size - len(held))]
    if limits.budget:
        whole = [found for found in whole if math.fsum(limits.prices[list(found)]) <= limits.budget + 1e-9]
    return {i for found in whole for i in found} - set(held)


@settings(deadline=None, max_examples=300)
@given(st.lists(COSTS, min_size=ITEMS, max_size=ITEMS), st.lists(st.booleans(), min_size=ITEMS, max_size=ITEMS), st.integers(1, 20), st.data())
def test_what_fits_a_budget_is_exactly_what_some_bundle_holds(costs, allowed, quarters, data):
    costs = np.array(costs)
    held = data.draw(st.lists(st.sampled_from(range(ITEMS)), max_size=2, unique=True).filter(lambda h: not np.isnan(costs[h]).any()))
    limits = Limits(data.draw(st.integers(len(held) + 1, 5)), np.array(allowed), costs, quarters / 4)
    assert set(np.flatnonzero(limits.fits(np.array(held, int), limits.usable())).tolist()) == brute_fits(limits, held)


def brute_best(weights, given_items, limits):
    """(log-probability, set) of every bundle by its best order, best first."""
    best: dict[frozenset, float] = {}

    def grow(held, score):
        if len(held) == limits.size:
            best[frozenset(held)] = max(best.get(frozenset(held), -math.inf), score)
            return
        fitting = sorted(brute_fits(limits, held))
        gains = log_softmax(weights[held].sum(0)[fitting] if fitting else np.zeros(1))
        for item, gain in zip(fitting, gains, strict=False):
            grow([*held, item], score + gain)

    grow(list(given_items), 0.0)
    return sorted(((score, sorted(found)) for found, score in best.items()), key=lambda pair: -pair[0])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 2), st.booleans())
def test_wide_beams_find_the_best_of_all_sets(seed, count, limited):
    rng = np.random.default_rng(seed)
    weights, allowed = rng.normal(size=(ITEMS, ITEMS)), rng.random(ITEMS) < 0.9
    given_items = rng.choice(ITEMS, count, replace=False)
    limits = Limits(3, allowed, rng.integers(1, 9, ITEMS) / 2, 8.0 if limited else 0.0)
    score = lambda sets: np.stack([weights[items].sum(0) for items in sets])
    wanted = brute_best(weights, given_items, limits)
    if not wanted:
        with pytest.raises(UserError):
            bundle_builder.build(score, given_items, limits, 1000, 5)
        return
    found = bundle_builder.build(score, given_items, limits, 1000, 5)
    assert [(pytest.approx(one.score), sorted(one.items.tolist())) for one in found] == wanted[:5]
    assert all(one.items[:count].tolist() == given_items.tolist() for one in found)


def test_more_are_found_than_there_are_beams():
    score = lambda sets: np.tile(np.arange(5.0), (len(sets), 1))
    found = bundle_builder.build(score, np.array([0]), Limits(2, np.ones(5, bool), np.zeros(5)), 1, 3)
    assert [one.items.tolist() for one in found] == [[0, 4], [0, 3], [0, 2]]
    tied = bundle_builder.build(lambda sets: np.zeros((len(sets), 5)), np.array([2]), Limits(2, np.ones(5, bool), np.zeros(5)), 4, 4)
    assert [one.items.tolist() for one in tied] == [[2, 0], [2, 1], [2, 3], [2, 4]]


def test_what_no_bundle_meets_is_said():
    score = lambda sets: np.zeros((len(sets), 4))
    costs = np.array([1.0, 2.0, 3.0, math.nan])
    with pytest.raises(UserError, match=r"the cheapest bundle of 3 items costs 6.00, more than --budget=5"):
        bundle_builder.build(score, np.array([2]), Limits(3, np.ones(4, bool), costs, 5.0), 4, 1)
    with pytest.raises(UserError, match="only 2 items may be added to a bundle that lacks 3"):
        bundle_builder.build(score, np.array([2]), Limits(4, np.ones(4, bool), costs, 50.0), 4, 1)
    with pytest.raises(UserError, match="only 3 items may be added to a bundle that lacks 4"):
        bundle_builder.build(score, np.array([2]), Limits(5, np.ones(4, bool), costs), 4, 1)


def test_prices_are_medians_of_events_else_the_attribute():
    items = Catalogue(list("abcdef"), [""] * 6, [{"price": "7"}, {"price": ["2.5", "9"]}, {"price": "cheap"}, {}, {"price": "inf"}, {"price": 4}])
    data = build(["u"], items, [0] * 4, [0, 0, 0, 3], range(4), price=[1.0, 1000.2, 3.0, np.nan])
    np.testing.assert_array_equal(bundle_builder.prices(data), [3.0, 2.5, np.nan, np.nan, np.nan, 4.0])
    exact = build(["u"], items, [0], [0], [0], price=[1000.2])  # as float32 it is a little more
    limits = Limits(1, np.ones(6, bool), bundle_builder.prices(exact), 1000.2)
    assert limits.fits(np.zeros(0, int), limits.usable()).tolist() == [True, True, False, False, False, True]
