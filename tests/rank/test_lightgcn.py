"""LightGCN's smoothing and its gradient against powers of the dense normalised adjacency, and that it learns two separate tastes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shop import shop, tastes

from rgjax.errors import UserError
from rgjax.rank import lightgcn


def dense(data, layers):
    """Mean over 0..layers of (D^-1/2 A D^-1/2)^l for the square matrix of users and items together."""
    r = data.matrix.toarray().astype(float)
    a = np.block([[np.zeros((len(r), len(r))), r], [r.T, np.zeros((r.shape[1],) * 2)]])
    degree = a.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    a = scale[:, None] * a * scale
    return sum(np.linalg.matrix_power(a, n) for n in range(layers + 1)) / (layers + 1)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_smoothing_is_powers_of_the_normalised_adjacency(layers):
    data, rng = shop(), np.random.default_rng(layers)
    users, items = rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    found = lightgcn.propagate((users, items), lightgcn.graph(data.matrix), layers)
    np.testing.assert_allclose(np.concatenate(found), dense(data, layers) @ np.concatenate([users, items]), atol=1e-5)


def test_gradient_of_the_loss_is_that_of_dense_products():
    data, rng = shop(seed=3), np.random.default_rng(0)
    vectors = tuple(jnp.asarray(rng.normal(size=(n, 4)), jnp.float32) for n in (12, 9))
    samples = jnp.array([0, 3, 3, 7]), jnp.array([1, 2, 0, 4]), jnp.array([5, 6, 8, 8])
    power = jnp.asarray(dense(data, 2), jnp.float32)

    def by_hand(vectors):
        smooth = power @ jnp.concatenate(vectors)
        x = jnp.sum(smooth[samples[0]] * (smooth[12 + samples[1]] - smooth[12 + samples[2]]), 1)
        rows = vectors[0][samples[0]], vectors[1][samples[1]], vectors[1][samples[2]]
        return -jnp.mean(jax.nn.log_sigmoid(x)) + 0.5 * 0.2 * sum(jnp.sum(row**2) for row in rows) / 4

    compute = jax.value_and_grad(lightgcn.batch_loss, has_aux=True)
    (value, _), found = jax.jit(compute, static_argnums=3)(vectors, lightgcn.graph(data.matrix), samples, 2, 0.2)
    expected, slopes = jax.value_and_grad(by_hand)(vectors)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(found, slopes, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_two_tastes_are_learned():
    model = lightgcn.fit(tastes(), width=8, layers=2, rate=0.02, epochs=25, batch=64)
    scores, own = np.asarray(model.scores(np.arange(60))), np.arange(40) // 20 == (np.arange(60) % 2)[:, None]
    assert model.losses[-1] < 0.7 * model.losses[0]
    assert (scores[own].reshape(60, 20).mean(1) > scores[~own].reshape(60, 20).mean(1)).all()


def test_divergence_is_told():
    with pytest.raises(UserError, match="diverged in epoch 1"):
        lightgcn.fit(tastes(), width=4, rate=float("nan"), epochs=1)
