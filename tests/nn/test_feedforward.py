"""Feed-forward layers against numpy, and dropout's laws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.nn.dropout import dropout
from rgjax.nn.feedforward import FeedForward, hidden_width

_tanh = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
ACTIVATIONS = {
    "swiglu": lambda x: x / (1 + np.exp(-x)),
    "geglu": _tanh,
    "gelu_new": _tanh,
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_feed_forward_equals_numpy(activation, bias):
    config, rng = tiny.config(activation=activation, bias=bias), np.random.default_rng(0)
    module = FeedForward(config, jax.random.key(0))
    for p in (module.b_in, module.b_out):
        if p is not None:
            p[...] = jnp.asarray(rng.normal(size=p[...].shape), jnp.float32)
    array = lambda p: 0.0 if p is None else np.asarray(p[...], np.float64)
    x, act = rng.normal(size=(2, 3, config.width)), ACTIVATIONS[activation]
    h = x @ array(module.w_in) + array(module.b_in)
    h = act(x @ array(module.w_gate)) * h if activation in ("swiglu", "geglu") else act(h)
    np.testing.assert_allclose(module(jnp.asarray(x, jnp.float32)), h @ array(module.w_out) + array(module.b_out), atol=1e-4)


def test_default_widths():
    assert hidden_width(tiny.config(mlp_width=0, width=256, activation="swiglu")) == 688  # 682.7, up to a multiple of 16
    assert hidden_width(tiny.config(mlp_width=0, width=256, activation="relu")) == 1024


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [64, 63])
def test_dropout_zeroes_its_share_and_keeps_the_mean(rate, width):
    y = np.asarray(dropout(jnp.ones((4000, width)), rate, jax.random.key(0)))
    share, n = (y == 0).mean(), y.size
    assert abs(share - rate) < 1 / 256 + 5 * math.sqrt(rate * (1 - rate) / n)
    assert y.mean() == pytest.approx(1, abs=5 * float(y.std()) / math.sqrt(n))
    assert len(np.unique(y)) == 2
    dropped = (y == 0).astype(float)  # four neighbours share a random word, and must not share their fate
    assert np.abs(np.corrcoef(dropped[:, :8].T) - np.eye(8)).max() < 0.08


def test_dropout_without_key_or_rate_changes_nothing():
    x = jnp.arange(12.0).reshape(3, 4)
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, jax.random.key(0)) is x
    assert dropout(x.astype(jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16


def test_dropout_repeats_with_its_key_only():
    x, keys = jnp.ones((50, 8)), jax.random.split(jax.random.key(0))
    same, again, other = (np.asarray(dropout(x, 0.5, k)) for k in (keys[0], keys[0], keys[1]))
    assert (same == again).all() and (same != other).any()
