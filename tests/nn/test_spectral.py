"""Spectral normalisation against numpy's singular values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.nn.spectral import normalised


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (5, 1), (1, 5), (12, 12)])
def test_the_largest_singular_value_becomes_one(shape):
    w = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
    found = np.asarray(normalised(jnp.asarray(w)))
    sigma = np.linalg.svd(w, compute_uv=False)[0]
    np.testing.assert_allclose(found, w / sigma, rtol=2e-3)


def test_its_gradient_is_that_of_the_quotient():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(8, 4)))
    v, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    w, weights = (u * [4.0, 1.0, 0.5, 0.2]) @ v.T, rng.normal(size=(8, 4))
    quotient = lambda w: np.sum(weights * w / np.linalg.svd(w, compute_uv=False)[0])
    expected = np.zeros_like(w)
    for place in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[place] = 1e-6
        expected[place] = (quotient(w + step) - quotient(w - step)) / 2e-6
    found = jax.grad(lambda w: jnp.sum(weights * normalised(w)))(jnp.asarray(w, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_zeros_stay_finite():
    assert np.isfinite(np.asarray(normalised(jnp.zeros((3, 2))))).all()
