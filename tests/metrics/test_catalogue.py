"""Catalogue metrics against loops written from their definitions, and their known extremes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rgjax.errors import UserError
from rgjax.metrics import catalogue

LISTS = np.array([[0, 1, 2], [0, 1, -1], [3, 0, 1], [-1, -1, -1]])
COUNTS = np.array([8, 4, 2, 1, 0, 16])


def test_counts_coverage_and_popularity_by_hand():
    assert catalogue.recommended(LISTS, 6).tolist() == [3, 3, 1, 1, 0, 0]
    assert catalogue.coverage(LISTS, 6) == pytest.approx(4 / 6)
    assert catalogue.average_popularity(LISTS, COUNTS)[:3] == pytest.approx([14 / 3, 6, 13 / 3])
    assert catalogue.novelty(LISTS, COUNTS, 16)[:3] == pytest.approx([(1 + 2 + 3) / 3, 1.5, (4 + 1 + 2) / 3])
    assert np.isnan(catalogue.average_popularity(LISTS, COUNTS)[3])
    assert catalogue.novelty([[4]], COUNTS, 16).tolist() == [4.0]  # without events: as one event


def test_tail_is_of_seen_items_only():
    assert np.flatnonzero(catalogue.tail(COUNTS, 0.4)).tolist() == [2, 3]
    assert np.flatnonzero(catalogue.tail(np.array([1, 1, 1, 1, 0]), 0.5)).tolist() == [0, 1]
    assert catalogue.tail_percentage(LISTS, COUNTS, 0.4)[:3] == pytest.approx([1 / 3, 0, 1 / 3])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=4), min_size=1, max_size=6))
def test_gini_and_entropy_follow_their_formulas(rows):
    lists = np.array([(row + [-1] * 4)[:4] for row in rows])
    counts = sorted(sum(row.count(i) for row in rows) for i in range(8))
    total = sum(counts)
    gini = sum((2 * j - 8 - 1) * c for j, c in enumerate(counts, 1)) / (8 * total)
    pairs = sum(abs(a - b) for a, b in itertools.product(counts, counts)) / (2 * 8 * total)  # the other definition of the Gini index
    assert catalogue.gini(lists, 8) == pytest.approx(gini) == pytest.approx(pairs)
    assert catalogue.entropy(lists, 8) == pytest.approx(stats.entropy(counts))


def test_extremes_of_evenness():
    even, same = np.arange(12).reshape(4, 3), np.zeros((5, 1), int)
    assert catalogue.gini(even, 12) == pytest.approx(0) and catalogue.entropy(even, 12) == pytest.approx(math.log(12))
    assert catalogue.gini(same, 10) == pytest.approx(0.9) and catalogue.entropy(same, 10) == 0
    assert math.isnan(catalogue.gini([[-1]], 3)) and math.isnan(catalogue.entropy([[-1]], 3))


def test_popularity_lift_by_hand():
    found = catalogue.popularity_lift([[0], [1], [5]], [[1], [2, 3], []], COUNTS)  # the last has no history
    assert found == pytest.approx(((8 + 4) / 2 - (4 + 1.5) / 2) / ((4 + 1.5) / 2))
    assert catalogue.popularity_lift([[0, 2]], [[2, 0]], COUNTS) == 0.0
    assert math.isnan(catalogue.popularity_lift([[5]], [[]], COUNTS)) and math.isnan(catalogue.popularity_lift([[5]], [[4]], COUNTS))


def test_diversity_of_attributes_over_pairs():
    sets, lists = [{"a"}, {"a", "b"}, {"c"}, set(), set(), {"z"}], np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1]])
    found = catalogue.attribute_diversity(lists, sets)
    assert found[:2] == pytest.approx([1 - (0.5 + 0 + 0) / 3, 1.0]) and np.isnan(found[2])


def test_categories_share_evenly():
    names, shares = catalogue.categories([{"genre": ["b", "a"]}, {"genre": "a"}, {}], "genre")
    assert names == ["a", "b"] and shares.tolist() == [[0.5, 0.5], [1, 0], [0, 0]]


def test_miscalibration_by_hand():
    shares = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0]])
    found = catalogue.miscalibration([[0, 3], [0, 1], [3, -1], [0, 1]], [[0, 1, 1, 3], [2], [0, 0], [3]], shares)
    p, q = [1 / 3, 2 / 3], [1.0, 0.0]
    assert found[0] == pytest.approx(sum(a * math.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True)))
    q = [1 / (1 + 1 / math.log2(3)), 1 - 1 / (1 + 1 / math.log2(3))]
    assert found[1] == pytest.approx(sum(0.5 * math.log(0.5 / (0.99 * b + 0.005)) for b in q))
    assert found[2] == pytest.approx(math.log(100)) and np.isnan(found[3])  # a list without categories; a history without
    weighted = catalogue.miscalibration([[0]], [[0, 1]], shares, weights=[[3, 1]])
    assert weighted[0] == pytest.approx(0.75 * math.log(0.75 / (0.99 + 0.0075)) + 0.25 * math.log(100))
    with pytest.raises(UserError, match="a=0"):
        catalogue.miscalibration([[0]], [[0]], shares, a=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_miscalibration_is_a_divergence(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(4), 6)
    lists, histories = rng.permuted(np.tile(np.arange(6), (3, 1)), axis=1)[:, :3], [rng.integers(0, 6, 4) for _ in range(3)]
    found = catalogue.miscalibration(lists, histories, shares)
    assert (found >= -1e-12).all() and (found <= math.log(100)).all()
    assert catalogue.miscalibration([[2, 2]], [[2, 2, 2]], shares)[0] == pytest.approx(0, abs=1e-12)
