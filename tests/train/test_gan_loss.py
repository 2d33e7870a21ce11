"""The losses of both sides by their formulas, and the gradient penalty in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.train import gan_loss

REAL, WRITTEN = np.array([0.3, -1.2, 2.5]), np.array([-0.7, 1.4, 0.1])
log_sigmoid = lambda x: -np.log1p(np.exp(-x))
FORMULAS = {
    "bce": (-log_sigmoid(REAL) - log_sigmoid(-WRITTEN), log_sigmoid(-WRITTEN), 1 / (1 + np.exp(-WRITTEN))),
    "nonsaturating": (-log_sigmoid(REAL) - log_sigmoid(-WRITTEN), -log_sigmoid(WRITTEN), 1 / (1 + np.exp(-WRITTEN))),
    "hinge": (np.maximum(1 - REAL, 0) + np.maximum(1 + WRITTEN, 0), -WRITTEN, WRITTEN),
    "wasserstein": (WRITTEN - REAL, -WRITTEN, WRITTEN),
    "relativistic": (-log_sigmoid(REAL - WRITTEN), -log_sigmoid(WRITTEN - REAL), 1 / (1 + np.exp(-(WRITTEN - REAL.mean())))),
}


@pytest.mark.parametrize("name", gan_loss.LOSSES)
def test_losses_are_their_formulas(name):
    losses, (of_d, of_g, reward) = gan_loss.LOSSES[name], FORMULAS[name]
    np.testing.assert_allclose(losses.discriminator(jnp.asarray(REAL), jnp.asarray(WRITTEN)), of_d.mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.generator(jnp.asarray(REAL), jnp.asarray(WRITTEN)), of_g.mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.reward(jnp.asarray(WRITTEN), jnp.asarray(REAL)), reward, rtol=1e-5)


@pytest.mark.parametrize("name", gan_loss.LOSSES)
def test_a_higher_verdict_on_what_is_written_is_what_the_generator_wants(name):
    losses = gan_loss.LOSSES[name]
    of_g = jax.grad(losses.generator, argnums=1)(jnp.asarray(REAL), jnp.asarray(WRITTEN))
    of_d = jax.grad(losses.discriminator, argnums=(0, 1))(jnp.asarray(REAL), jnp.asarray(WRITTEN))
    assert (of_g < 0).all() and (of_d[0] <= 0).all() and (of_d[1] >= 0).all()


def test_the_penalty_of_a_linear_judge_and_of_a_flat_one():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    real, written = jnp.ones((5, 4, 3)), jnp.zeros((5, 4, 3))
    found = gan_loss.gradient_penalty(lambda x: jnp.einsum("bte,te->b", x, w), real, written, jax.random.key(0))
    assert found == pytest.approx(float((np.linalg.norm(w) - 1) ** 2), rel=1e-5)
    flat = jax.value_and_grad(lambda s: gan_loss.gradient_penalty(lambda x: s * jnp.sum(x, (1, 2)), real, written, jax.random.key(0)))(0.0)
    assert flat[0] == 1 and np.isfinite(flat[1])


def test_the_penalty_looks_between_the_texts():
    """Of |x|^2 / 2 the gradient is x: at a share s of a real text of ones and a written one of zeros its length is s * sqrt(12)."""
    key = jax.random.key(5)
    found = gan_loss.gradient_penalty(lambda x: jnp.sum(x**2, (1, 2)) / 2, jnp.ones((64, 4, 3)), jnp.zeros((64, 4, 3)), key)
    share = np.asarray(jax.random.uniform(key, (64, 1, 1)))
    assert found == pytest.approx(np.mean((share * np.sqrt(12) - 1) ** 2), rel=1e-5)


def test_told_apart_counts_pairs():
    assert gan_loss.told_apart(jnp.asarray([1.0, 3.0]), jnp.asarray([2.0, 3.0])) == pytest.approx((0 + 0 + 1 + 0.5) / 4)
