"""REINFORCE against the exact gradient of the expected reward, over all short texts, and its credit position by position."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.decode import recurrent
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.train.adversarial import Texts
from rgjax.train.reinforce import surrogate, token_rewards

V, T = 3, 3
FACTORY = ModelFactory(LSTMConfig(4, 4, 0.8), V, LSTM)
PARAMS = FACTORY.fresh(jax.random.key(0))
TEXTS = jnp.asarray(list(itertools.product(range(V), repeat=T)), jnp.int32)
REWARDS_N = jnp.asarray(np.random.default_rng(1).normal(size=len(TEXTS)), jnp.float32)
log_probs = jax.jit(lambda p, texts: FACTORY.model(p).log_probs(texts))


def exact():
    return jax.grad(lambda p: jnp.sum(jnp.exp(log_probs(p, TEXTS).sum(1)) * REWARDS_N))(PARAMS)


@pytest.mark.parametrize("baseline", ["none", "batch"])
def test_its_mean_over_all_batches_is_the_gradient_of_the_expected_reward(baseline):
    """Every batch of two texts, weighed by its probability; the surrogate's mean over tokens is T times smaller."""
    p_N = jnp.exp(log_probs(PARAMS, TEXTS).sum(1))
    pairs = jnp.asarray(list(itertools.product(range(len(TEXTS)), repeat=2)))

    def total(params):
        def one(pair):
            rewards_BT = jnp.broadcast_to(REWARDS_N[pair][:, None], (2, T))
            return p_N[pair[0]] * p_N[pair[1]] * surrogate(log_probs(params, TEXTS[pair]), rewards_BT, jnp.ones((2, T)), baseline)

        return jnp.sum(jax.vmap(one)(pairs))

    found = jax.grad(total)(PARAMS)
    for mine, true in zip(jax.tree.leaves(found), jax.tree.leaves(exact()), strict=True):
        np.testing.assert_allclose(-T * mine, true, atol=2e-6)


def test_what_lies_beyond_a_text_counts_nothing():
    rng = np.random.default_rng(0)
    log_p, rewards = (jnp.asarray(rng.normal(size=(3, 5)), jnp.float32) for _ in range(2))
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    for baseline in ("none", "batch"):
        found = surrogate(log_p, rewards, mask, baseline)
        assert found == pytest.approx(float(surrogate(jnp.where(mask, log_p, 99), jnp.where(mask, rewards, -77), mask, baseline)), rel=1e-5)
    by_hand = 0.0
    for b, t in np.argwhere(np.asarray(mask)):
        others = [float(rewards[o, t]) for o in range(3) if mask[o, t] and o != b]
        by_hand -= (float(rewards[b, t]) - (np.mean(others) if others else 0.0)) * float(log_p[b, t])
    assert found == pytest.approx(by_hand / 9, rel=1e-5)


def test_rewards_belong_to_their_text_and_position():
    """A judge that tells from the text alone which it is: the reward of token t of text b is the mean over its own completions."""
    texts, times = TEXTS[jnp.asarray([1, 14, 25])], 5
    completed = recurrent.completions(FACTORY.model(PARAMS), jax.random.key(1), texts, times)
    judge = lambda texts, mask=None: texts[:, 0] * 100.0 + texts[:, 1] * 10.0 + texts[:, 2]
    whole = Texts(texts, jnp.ones(texts.shape, jnp.int32))
    found = np.asarray(token_rewards(judge, whole, Texts(completed, jnp.ones(completed.shape, jnp.int32))))
    assert found.shape == (3, T)
    for b in range(3):
        for t in range(T - 1):
            assert found[b, t] == pytest.approx(np.mean([float(judge(np.asarray(completed)[t, n, b][None])[0]) for n in range(times)]))
        assert found[b, T - 1] == pytest.approx(float(judge(texts[b][None])[0]))
    np.testing.assert_array_equal(token_rewards(judge, whole, None), np.broadcast_to(judge(texts)[:, None], (3, T)))
