"""Ranking metrics against loops written from their definitions, and what ties, NaN and drawn negatives must not do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rgjax.errors import UserError
from rgjax.metrics import ranking, recommender_definitions


def by_hand(order, wanted, k):
    """All metrics of one list, from the definitions."""
    hits = [i + 1 for i, item in enumerate(order[:k]) if item in wanted]
    ideal = sum(1 / math.log2(1 + r) for r in range(1, min(k, len(wanted)) + 1))
    return {
        "hr": float(bool(hits)), "recall": len(hits) / len(wanted), "precision": len(hits) / k,
        "ndcg": sum(1 / math.log2(1 + r) for r in hits) / ideal, "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum((n + 1) / r for n, r in enumerate(hits)) / min(k, len(wanted)),
    }  # fmt: skip


def ranks_in(orders, wanted):
    """[B, M]: the places of each user's wanted items in an order of all, 0 where a user has fewer."""
    found = [sorted(1 + list(order).index(item) for item in items) for order, items in zip(orders, wanted, strict=True)]
    return np.array([one + [0] * (max(map(len, found)) - len(one)) for one in found])


def csr(rows, items):
    dense = np.zeros((len(rows), items), np.float32)
    for row, held in zip(dense, rows, strict=True):
        row[list(held)] = 1
    return sparse.csr_array(dense)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 12))
def test_ranks_give_what_a_loop_gives(seed, k, items):
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(items) for _ in range(3)]
    wanted = [rng.choice(items, rng.integers(1, items), replace=False) for _ in range(3)]
    found = ranking.at_ranks(ranks_in(orders, wanted), k)
    for u in range(3):
        for name, value in by_hand(orders[u], set(wanted[u]), k).items():
            assert found[name][u] == pytest.approx(value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_ties_count_against_the_held_out_item(seed, items):
    rng = np.random.default_rng(seed)
    scores, held = rng.integers(0, 3, (4, items)).astype(np.float32), rng.integers(0, items, 4)
    seen = [rng.choice(items, rng.integers(0, items)) for _ in range(4)]
    found = ranking.ranks(scores, held, csr(seen, items))
    for u in range(4):
        others = [i for i in range(items) if i != held[u] and i not in seen[u]]
        assert found[u] == 1 + sum(scores[u, i] >= scores[u, held[u]] for i in others)


def test_repeated_entries_of_seen_count_once():
    seen = sparse.csr_array((np.ones(3), np.array([1, 1, 2]), np.array([0, 3])), shape=(1, 5))
    assert ranking.ranks([[0, 9, 8, 7, 1]], [4], seen).tolist() == [2]


@pytest.mark.parity
def test_ndcg_of_several_relevant_items_is_scikit_learns():
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    rng = np.random.default_rng(0)
    scores, relevant = rng.normal(size=(20, 30)), rng.random((20, 30)) < 0.2
    relevant[:, 0] = True
    found = ranking.at_ranks(ranks_in(np.argsort(-scores, axis=1), [np.flatnonzero(r) for r in relevant]), 7)["ndcg"]
    assert found.mean() == pytest.approx(ndcg_score(relevant, scores, k=7))


@pytest.mark.parametrize("value", [0.0, np.nan, -np.inf, np.inf])
def test_a_scorer_that_knows_nothing_finds_nothing(value):
    scores, held = np.full((5, 40), value), np.arange(5)
    assert ranking.ranks(scores, held).tolist() == [40] * 5
    assert ranking.at_ranks(ranking.ranks(scores, held), 10)["hr"].sum() == 0
    assert (ranking.sampled_ranks(scores, held, csr([[]] * 5, 40), 20) == 21).all()


def test_users_without_a_held_out_item_are_left_out():
    found = ranking.at_ranks(ranking.ranks(np.eye(3), [0, -1, 0]), 2)
    assert found["hr"].tolist()[0::2] == [1.0, 0.0] and np.isnan(found["hr"][1])
    means = ranking.means(ranking.named(found, 2), resamples=200)
    assert means["hr@2"]["value"] == 0.5 and means["hr@2"]["low"] <= 0.5 <= means["hr@2"]["high"]


def test_interval_of_the_mean_holds_the_normal_one():
    hits = (np.random.default_rng(0).random(2000) < 0.3).astype(float)
    found = ranking.means({"hr@10": hits}, 2000)["hr@10"]
    error = 1.96 * hits.std() / math.sqrt(2000)
    assert (found["low"], found["high"]) == pytest.approx((hits.mean() - error, hits.mean() + error), abs=0.1 * error)


def test_drawn_negatives_are_different_unseen_items_and_uniform():
    known, drawn = np.array([0, 1, 5, 9]), np.zeros(12)
    for seed in range(2000):
        one = ranking._unseen(known, 12, 3, np.random.default_rng(seed))
        assert len(set(one)) == 3 and not set(one) & set(known)
        drawn[one] += 1
    free = np.setdiff1d(np.arange(12), known)
    assert drawn[known].sum() == 0 and np.abs(drawn[free] / 2000 - 3 / 8).max() < 0.05
    assert sorted(ranking._unseen(known, 12, 100, np.random.default_rng(0))) == free.tolist()


def test_sampling_inflates_as_the_binomial_law_says():
    rng = np.random.default_rng(1)
    scores, held = rng.normal(size=(1, 5000)), np.array([0])
    scores[0, 0] = np.sort(scores[0])[-250]  # beaten by about 5 %: full rank 250, among 100 drawn about 6
    found = [ranking.sampled_ranks(scores, held, csr([[]], 5000), 100, seed)[0] for seed in range(400)]
    exact = ranking.ranks(scores, held)[0]
    assert np.mean(found) == pytest.approx(1 + 100 * (exact - 1) / 4999, abs=0.4) and exact > 200


def test_a_definition_says_what_its_name_does():
    names = ["hr@20", "ndcg@5_sampled100", "miscalibration_film genre@10", "ndcg@5_gap_town", "weight_genre (triples)"]
    told = recommender_definitions.definitions(names)
    assert "first 20" in told["hr@20"] and "among 100 drawn" in told["ndcg@5_sampled100"] and "first 5" in told["ndcg@5_sampled100"]
    assert "nats of film genre in" in told["miscalibration_film genre@10"] and "ndcg@5 over groups of users by town" in told["ndcg@5_gap_town"]
    assert told["weight_genre (triples)"].startswith("what genre (triples) counts")
    with pytest.raises(KeyError):
        recommender_definitions.definitions(["hr"])


def test_mistakes_are_told():
    with pytest.raises(UserError, match="k=0"):
        ranking.at_ranks([1], 0)
