"""The best k against numpy's sort of the whole matrix: shapes, ties, filters, and what pads."""

import numpy as np
import pytest
from scipy import sparse

from rgjax.errors import UserError
from rgjax.rank import topk


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    """Several chunks of users and items, the last ones incomplete."""
    patch = pytest.MonkeyPatch()
    patch.setattr(topk, "USERS", {"cpu": 4})
    patch.setattr(topk, "CELLS", {"cpu": 4 * 64})
    yield
    patch.undo()


def sorted_whole(scores, k, hidden):
    """(items, scores): all scores sorted, lower numbers first at a tie, with -1 for what is hidden."""
    scores = np.where(hidden, -np.inf, scores)
    items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, items, axis=1)
    return np.where(np.isinf(found), -1, items), found


def case(seed, users, items, ties):
    rng = np.random.default_rng(seed)
    make = (lambda *s: rng.integers(-2, 3, s)) if ties else (lambda *s: rng.integers(-1000, 1000, s))  # float32 sums of these are exact
    return make(users, 3), make(items, 3), make(items), rng.random(items) < rng.choice([0.1, 0.7, 1.0])


# (users, items, k, density of what was seen): one chunk of either and several, the last one full and not, blocks that are full, and one item
# more; k of one, a few, all items, and more than a block. A shape compiles once, so many cases of each are cheap.
SHAPES = [(1, 1, 1, 0.0), (4, 5, 5, 0.1), (8, 64, 7, 0.9), (11, 65, 33, 0.1), (10, 200, 1, 0.0), (7, 213, 213, 0.9)]
CASES = [(seed, ties) for seed in range(4) for ties in (False, True)]


@pytest.mark.parametrize("users, items, k, density", SHAPES)
def test_every_way_gives_the_sorted_matrix(users, items, k, density):
    """Of vectors and of scores that are there."""
    seen = sparse.random_array((users, items), density=density, rng=np.random.default_rng(items), format="csr")
    for seed, ties in CASES:
        u, v, bias, allowed = case(seed, users, items, ties)
        scores = (u @ v.T + bias).astype(np.float32)
        whole = sorted_whole(scores, k, (seen.toarray() != 0) | ~allowed)
        for found in (
            topk.top_k(u, v, k, bias_I=bias, seen_UI=seen, allowed_I=allowed),
            topk.of_scores(scores, k, seen_BI=seen, allowed_I=allowed),
        ):
            np.testing.assert_array_equal(found.items, whole[0])
            np.testing.assert_array_equal(found.scores, whole[1])
            assert found.items.dtype == np.int32 and found.scores.dtype == np.float32


@pytest.mark.parametrize("items, k", [(200, 40), (213, 64)])
def test_a_last_chunk_that_overlaps_gives_no_item_twice(items, k):
    u, v, *_ = case(items, 9, items, ties=True)
    scores = (u @ v.T).astype(np.float32)
    whole = sorted_whole(scores, k, np.zeros(scores.shape, bool))[0]
    np.testing.assert_array_equal(topk.top_k(u, v, k).items, whole)


def test_real_numbers_without_filters():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(9, 8)).astype(np.float32), rng.normal(size=(500, 8)).astype(np.float32)
    found, scores = topk.top_k(u, v, 20), u @ v.T
    np.testing.assert_array_equal(found.items, np.argsort(-scores, axis=1)[:, :20])
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :20], rtol=1e-5)


def test_zeros_of_both_signs_are_equal():
    v = np.array([[-0.0], [0.0]] * 50, np.float32)
    for found in (topk.top_k(np.ones((2, 1)), v, 70), topk.of_scores(np.tile(v[:, 0], (2, 1)), 70)):
        assert (found.items == np.arange(70)).all()


def test_what_is_left_is_padded():
    seen = sparse.csr_array(np.eye(2, 40, dtype=np.float32))
    found = topk.top_k(np.ones((2, 1)), np.arange(40.0)[:, None], 5, seen_UI=seen, allowed_I=np.arange(40) < 3)
    assert found.items.tolist() == [[2, 1, -1, -1, -1], [2, 0, -1, -1, -1]] and np.isneginf(found.scores[:, 2:]).all()


def test_only_allowed_items_need_finite_scores():
    v = np.arange(40.0)[:, None].copy()
    v[7] = np.nan
    found = topk.top_k(np.ones((1, 1)), v, 3, allowed_I=np.arange(40) != 7)
    assert found.items.tolist() == [[39, 38, 37]]
    with pytest.raises(UserError, match="row 1 are NaN"):
        topk.of_scores(np.array([[1.0, 2], [np.nan, 1]]), 1)
    with pytest.raises(UserError, match="row 0 are NaN"):
        topk.top_k(np.ones((1, 1)), v, 3)


def test_mistakes_are_told():
    u, v = np.ones((2, 3)), np.ones((5, 3))
    for k in (0, 6):
        with pytest.raises(UserError, match=f"k={k} must be between 1 and 5"):
            topk.top_k(u, v, k)
    with pytest.raises(UserError, match="width 2 and item vectors 3"):
        topk.top_k(u[:, :2], v, 1)
    with pytest.raises(UserError, match="shape .5, 2. and there are 2 users and 5 items"):
        topk.top_k(u, v, 1, seen_UI=sparse.csr_array((5, 2)))
    with pytest.raises(UserError, match="allowed has shape"):
        topk.top_k(u, v, 1, allowed_I=[True])
    with pytest.raises(UserError, match="no users"):
        topk.top_k(u[:0], v, 1)
