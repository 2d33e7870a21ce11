"""Popularity, Markov and item neighbours against loops over the events; evaluation against ranks by hand."""

import numpy as np
import pytest
from shop import shop

from rgjax.data.interactions import last_out
from rgjax.errors import UserError
from rgjax.rank import ease, evaluate, knn, markov, popularity
from rgjax.rank.recommender import HistoryRecommender, LinearRecommender, as_matrix

DATA = shop()
USERS = np.array([3, 0, 11, 3])


def histories(data, users=USERS):
    return [data.history(u) for u in users]


def test_popularity_counts_events():
    found = np.asarray(popularity.fit(DATA).scores(USERS))
    assert found.dtype == np.float32 and (found == [[(DATA.item == i).sum() for i in range(9)]] * 4).all()
    assert (np.asarray(popularity.fit(DATA).from_histories([[1], []])) == found[:2]).all()


@pytest.mark.parametrize("seed", range(5))
def test_markov_counts_what_came_next(seed):
    data = shop(seed=seed)
    found = np.asarray(markov.fit(data).scores(np.arange(12)))
    expected = np.zeros((12, 9))
    for u in range(12):
        own = list(data.history(u))
        for v in range(12):
            steps = list(data.history(v))
            for a, b in zip(steps, steps[1:], strict=False):
                expected[u, b] += bool(own) and a == own[-1]
    assert (np.floor(found) == expected).all()
    rest = found - expected  # popularity, below 1, orders what the chain leaves tied
    np.testing.assert_allclose(rest, np.broadcast_to(data.counts / (data.counts.max() + 1), rest.shape), atol=1e-5)


def test_a_known_history_scores_as_its_user():
    for model in (markov.fit(DATA), knn.fit(DATA, 3)):
        assert isinstance(model, HistoryRecommender)
        np.testing.assert_array_equal(model.scores(USERS), model.from_histories(histories(DATA)))


@pytest.mark.parametrize("neighbours, shrinkage", [(2, 0.0), (4, 10.0), (50, 1.0)])
def test_neighbours_are_the_most_alike(neighbours, shrinkage):
    taken = DATA.matrix.toarray().astype(bool)
    alike = np.zeros((9, 9))
    for i in range(9):
        for j in range(9):
            both = (taken[:, i] & taken[:, j]).sum()
            if i != j and both:
                alike[i, j] = both / (np.sqrt(taken[:, i].sum() * taken[:, j].sum()) + shrinkage)
        order = sorted(range(9), key=lambda j: (-np.float32(alike[i, j]), j))
        alike[i, order[neighbours:]] = 0
    found = knn.fit(DATA, neighbours, shrinkage)
    np.testing.assert_allclose(found.scores(USERS), taken[USERS] @ alike, rtol=1e-5)
    np.testing.assert_allclose(found.from_histories([[], [2, 2, 5]]), [np.zeros(9), alike[2] + alike[5]], rtol=1e-5)


def test_what_each_item_of_a_history_adds_makes_the_score():
    had, items = np.array([1, 2, 5]), np.array([0, 3, 2])
    for model in (knn.fit(DATA, 3), ease.fit(DATA, 2.0)):
        assert isinstance(model, LinearRecommender)
        adds = model.added(had, items)
        np.testing.assert_allclose(adds.sum(1), np.asarray(model.from_histories([[5, 1, 2, 2]]))[0, items], atol=1e-6)
        np.testing.assert_allclose(adds[:, 1], np.asarray(model.from_histories([[2]]))[0, items], atol=1e-6)
    assert not isinstance(markov.fit(DATA), LinearRecommender)


def test_neighbours_in_chunks_are_the_same(monkeypatch):
    whole = knn.fit(DATA, 3).neighbours_II.toarray()
    monkeypatch.setattr(knn, "_CELLS", 20)
    assert (knn.fit(DATA, 3).neighbours_II.toarray() == whole).all()


def test_what_is_no_item_is_refused():
    with pytest.raises(UserError, match="item 9 and the catalogue has items 0 to 8"):
        as_matrix([[1], [9]], 9)
    with pytest.raises(UserError, match="neighbours=0"):
        knn.fit(DATA, 0)


@pytest.mark.parametrize("from_seen", [False, True])
def test_evaluation_in_batches_ranks_unseen_items(monkeypatch, from_seen):
    train, held = last_out(DATA)
    model = markov.fit(train)
    monkeypatch.setattr(evaluate, "_CELLS", 9 * 5)
    found = evaluate.held_out(model, train, held, 4, from_seen=from_seen)
    assert held[11] == -1 and found.users.tolist() == np.flatnonzero(held >= 0).tolist()
    scores = np.asarray(model.scores(np.arange(12)))
    for u, rank, shown in zip(found.users, found.ranks, found.lists, strict=True):
        rivals = [i for i in range(9) if i not in train.history(u) and i != held[u]]
        assert rank == 1 + sum(scores[u, i] >= scores[u, held[u]] for i in rivals)
        free = [i for i in np.argsort(-scores[u], kind="stable") if i not in train.history(u)]
        assert shown.tolist() == (free + [-1] * 4)[:4]


def test_fitted_without_the_last_event_but_applied_to_it():
    train, held = last_out(DATA)
    model = markov.fit(last_out(DATA, 2)[0])
    found = evaluate.held_out(model, train, held, 3, from_seen=True, negatives=3)
    scores = np.asarray(model.from_histories(histories(train, found.users)))
    for row, u in enumerate(found.users):
        rivals = [i for i in range(9) if i not in train.history(u) and i != held[u]]
        assert found.ranks[row] == 1 + sum(scores[row, i] >= scores[row, held[u]] for i in rivals)
    assert (found.ranks != evaluate.held_out(model, train, held, 3).ranks).any()
    assert ((found.sampled <= 4) & (found.sampled <= found.ranks)).all()
