"""ALS against dense normal equations and the objective summed over every cell; against the library implicit where it is installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shop import shop

from rgjax.errors import UserError
from rgjax.rank import als


def counted(rows=14, columns=10, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.poisson(0.7, (rows, columns)) * (rng.random((rows, 1)) < 0.9)).astype(np.float32)


def dense_half(r, y, penalty, alpha):
    """Each row's weighted ridge regression on all columns."""
    found = []
    for row in r.astype(float):
        c = np.where(row > 0, 1 + alpha * row, 1.0)
        found.append(np.linalg.solve(y.T @ (c[:, None] * y) + penalty * np.eye(y.shape[1]), y.T @ (c * (row > 0))))
    return np.array(found)


def cells(r, x, y, penalty, alpha):
    c = np.where(r > 0, 1 + alpha * r, 1.0)
    return (c * ((r > 0) - x @ y.T) ** 2).sum() + penalty * ((x**2).sum() + (y**2).sum())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_half_sweep_solves_the_normal_equations(seed):
    r, y = counted(seed=seed), np.random.default_rng(seed).normal(size=(10, 4))
    found = als.half_sweep(sparse.csr_array(r), y.astype(np.float32), 0.3, 5.0)
    np.testing.assert_allclose(found, dense_half(r, y, 0.3, 5.0), atol=2e-5)


def test_long_and_short_rows_in_small_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    r = (rng.random((40, 70)) < np.linspace(0, 1, 40)[:, None]).astype(np.float32)
    y = rng.normal(size=(70, 3))
    monkeypatch.setattr(als, "_CELLS", 400)  # two rows of 64 at once
    np.testing.assert_allclose(als.half_sweep(sparse.csr_array(r), y.astype(np.float32), 1.0, 2.0), dense_half(r, y, 1.0, 2.0), atol=2e-5)


def test_every_half_sweep_lowers_the_objective_that_all_cells_give():
    r = counted()
    taken, y = sparse.csr_array(r), np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    x, last = np.zeros((14, 4), np.float32), np.inf
    for _ in range(4):
        for users_turn in (True, False):
            x, y = (als.half_sweep(taken, y, 0.5, 3.0), y) if users_turn else (x, als.half_sweep(taken.T.tocsr(), x, 0.5, 3.0))
            told = als.Als(x, y, taken, 0.5, 3.0).objective()
            assert told == pytest.approx(cells(r, np.asarray(x, float), np.asarray(y, float), 0.5, 3.0), rel=1e-9) and told < last
            last = told


def test_fit_is_sweeps_of_dense_solves_and_histories_fold_in():
    data = shop()
    start = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    model = als.fit_matrix(data.matrix, 3, 1.0, 4.0, sweeps=3, start_ID=start)
    r, y = data.matrix.toarray(), start.astype(float)
    for _ in range(3):
        x = dense_half(r, y, 1.0, 4.0)
        y = dense_half(r.T, x, 1.0, 4.0)
    np.testing.assert_allclose(model.scores(np.arange(12)), x @ y.T, atol=2e-4)
    histories = [data.history(u) for u in (4, 11)]
    np.testing.assert_allclose(model.from_histories(histories), dense_half(r[[4, 11]], y, 1.0, 4.0) @ y.T, atol=2e-4)
    assert (np.asarray(model.from_histories([[]])) == 0).all()
    with pytest.raises(UserError, match="penalty=0"):
        als.fit(data, penalty=0)


@pytest.mark.parity
def test_objective_is_that_of_implicit_after_as_many_iterations():
    theirs = pytest.importorskip("implicit.cpu.als").AlternatingLeastSquares
    rng = np.random.default_rng(0)
    low_rank = rng.gamma(0.4, size=(300, 6)) @ rng.gamma(0.4, size=(6, 200))
    r = (rng.random((300, 200)) < np.minimum(low_rank / 8, 0.5)).astype(np.float32)
    start = (rng.random((200, 16)) * 0.01).astype(np.float32)
    for sweeps in (1, 3, 10):
        peer = theirs(factors=16, regularization=2.0, alpha=1.0, use_cg=False, iterations=sweeps, num_threads=1, random_state=0)
        peer.item_factors = start.copy()  # it computes the users from these first
        peer.fit(sparse.csr_matrix(r * 11.0), show_progress=False)  # its values are confidences
        ours = als.fit_matrix(sparse.csr_array(r), 16, 2.0, 10.0, sweeps, start_ID=start)
        assert ours.objective() == pytest.approx(cells(r, peer.user_factors, peer.item_factors, 2.0, 10.0), rel=0.01)
