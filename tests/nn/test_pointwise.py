"""HSTU's layer against its equations, written out."""

import jax
import numpy as np
import pytest

from rgjax.config import ModelConfig
from rgjax.nn.pointwise import PointwiseAttention, PointwiseBlock

CONFIG = ModelConfig(width=8, heads=2, layers=1, positions="relative", norm="layernorm", dropout=0.0)
X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
BIAS = np.where(np.tril(np.ones((5, 5))) > 0, np.random.default_rng(1).normal(size=(1, 2, 5, 5)), -1e9).astype(np.float32)


def _silu(x):
    return x / (1 + np.exp(-x))


def test_the_equations():
    layer = PointwiseAttention(CONFIG, jax.random.key(0))
    u, v, q, k = (_silu(np.einsum("btd,dha->btha", X, np.asarray(w[...]))) for w in (layer.wu, layer.wv, layer.wq, layer.wk))
    out = np.zeros((2, 5, 8))
    for b in range(2):
        for t in range(5):
            read = np.zeros((2, 4))
            for h in range(2):
                for s in range(t + 1):
                    read[h] += _silu(q[b, t, h] @ k[b, s, h] + BIAS[0, h, t, s]) * v[b, s, h] / (t + 1)
            flat = read.reshape(-1)
            flat = (flat - flat.mean()) / np.sqrt(flat.var() + CONFIG.norm_eps)
            out[b, t] = np.einsum("ha,had->d", flat.reshape(2, 4) * u[b, t], np.asarray(layer.wo[...]))
    np.testing.assert_allclose(layer(X, BIAS)[0], out, atol=2e-4)


def test_shares_sum_to_one_and_see_nothing_later():
    weights = np.asarray(PointwiseAttention(CONFIG, jax.random.key(0)).weights(X, BIAS))
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    assert (weights[..., np.triu(np.ones((5, 5)), 1) > 0] == 0).all()


@pytest.mark.parametrize("at", [1, 4])
def test_a_block_looks_back_only(at):
    block, other = PointwiseBlock(CONFIG, jax.random.key(0)), X.copy()
    other[:, at:] += 1
    np.testing.assert_allclose(block(other, BIAS)[0][:, :at], block(X, BIAS)[0][:, :at], atol=1e-6)
