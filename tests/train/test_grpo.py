"""Group relative policy optimization: advantages by their definition, the gradient of the policy, and a divergence that is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.train import grpo


def rewards(groups=3, texts=4, kinds=2, seed=0):
    return np.random.default_rng(seed).normal(size=(groups, texts, kinds))


def test_each_reward_is_normalised_before_they_are_added():
    found = rewards()
    for p in range(3):
        scores = [(found[p, :, k] - np.mean(found[p, :, k])) / (np.std(found[p, :, k]) + 1e-4) for k in range(2)]
        wanted = (3 * scores[0] + 1 * scores[1]) / 4
        np.testing.assert_allclose(grpo.advantages(found, np.array([3.0, 1.0]))[p], wanted, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0.5, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_the_scale_of_a_reward_does_not_matter(scale, shift, seed):
    one = rewards(seed=seed)
    other = one.copy()
    other[..., 1] = other[..., 1] * scale + shift
    weights = np.array([1.0, 1.0])
    np.testing.assert_allclose(grpo.advantages(other, weights), grpo.advantages(one, weights), atol=5e-3)


def test_a_group_whose_rewards_are_equal_moves_nothing():
    found = rewards()
    found[1] = 0.25
    better = grpo.advantages(found, np.ones(2))
    assert np.all(better[1] == 0) and np.abs(better[0]).min() > 0
    np.testing.assert_allclose(better.mean(1), 0, atol=1e-6)


def test_without_a_divergence_the_gradient_is_the_policy_gradient():
    """For a policy without context, the gradient by logits is sum over tokens of -advantage * (one hot - p)."""
    logits, tokens = jnp.array([0.3, -1.0, 0.5]), np.array([[0, 2, 2], [1, 0, 0]])
    mask, better = np.array([[1, 1, 1], [1, 1, 0]]), np.array([1.0, -0.5], np.float32)

    def loss(logits):
        log_probs = jax.nn.log_softmax(logits)[tokens]
        return grpo.group_sums(log_probs, jax.lax.stop_gradient(log_probs), mask, better, 0.0)["loss"]

    wanted = sum(-better[b] * (np.eye(3)[tokens[b, t]] - jax.nn.softmax(logits)) for b in range(2) for t in range(3) if mask[b, t])
    np.testing.assert_allclose(jax.grad(loss)(logits), wanted, rtol=1e-5, atol=1e-6)


def test_the_estimated_divergence_has_the_true_one_as_its_mean():
    """Over all tokens of a small vocabulary, weighed by p, exp(d) - d - 1 gives KL(p || q)."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    one = lambda v: float(grpo.group_sums(jnp.log(p[[[v]]]), jnp.log(q[[[v]]]), jnp.ones((1, 1)), jnp.zeros(1), 1.0)["kl"])
    assert sum(p[v] * one(v) for v in range(3)) == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-5)
    assert all(one(v) >= 0 for v in range(3))


def test_nothing_beyond_a_text_counts():
    log_probs, reference = jnp.array([[-1.0, -9e9]]), jnp.array([[-2.0, 0.0]])
    found = grpo.group_sums(log_probs, reference, jnp.array([[1, 0]]), jnp.ones(1), 1.0)
    assert found["tokens"] == 1 and float(found["loss"]) == pytest.approx(np.exp(-1.0) + 1 - 1 + 1, rel=1e-6)
