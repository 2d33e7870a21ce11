"""EASE against the optimality conditions of its constrained least squares, and against each item's own regression."""

import numpy as np
import pytest
from shop import shop

from rgjax.errors import UserError
from rgjax.rank import ease


@pytest.mark.parametrize("seed, penalty", [(0, 0.5), (1, 5.0), (2, 500.0)])
def test_conditions_of_the_optimum(seed, penalty):
    data = shop(users=30, items=15, events=200, seed=seed)
    x, b = data.matrix.toarray().astype(float), np.asarray(ease.fit(data, penalty).weights_II, float)
    gradient = x.T @ (x @ b - x) + penalty * b  # may differ from zero on the diagonal only, where the multipliers are
    assert (np.diag(b) == 0).all() and np.abs(gradient - np.diag(np.diag(gradient))).max() < 1e-4


def test_each_column_is_the_ridge_regression_on_the_other_items():
    data = shop(users=30, items=10, events=150)
    x, b = data.matrix.toarray().astype(float), np.asarray(ease.fit(data, 2.0).weights_II)
    for j in range(10):
        others = np.delete(np.arange(10), j)
        own = np.linalg.solve(x[:, others].T @ x[:, others] + 2.0 * np.eye(9), x[:, others].T @ x[:, j])
        np.testing.assert_allclose(b[others, j], own, atol=1e-6)


def test_scores_of_users_and_of_histories():
    data = shop()
    model, users = ease.fit(data, 1.0), np.array([2, 11, 2])
    np.testing.assert_allclose(model.scores(users), data.matrix.toarray()[users] @ np.asarray(model.weights_II), atol=1e-6)
    np.testing.assert_array_equal(model.from_histories([data.history(u) for u in users]), model.scores(users))


def test_both_ways_to_invert_agree():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(40, 25))
    gram = root.T @ root + np.eye(25)
    np.testing.assert_allclose(ease.inverted(gram.copy()) @ gram, np.eye(25), atol=1e-10)
    np.testing.assert_allclose(ease.solved(gram), ease.inverted(gram.copy()), atol=1e-10)
    with pytest.raises(UserError, match="penalty=0"):
        ease.fit(shop(), 0)
    with pytest.raises(UserError, match="not positive definite"):
        ease.inverted(-np.eye(3))
