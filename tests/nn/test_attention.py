"""Attention against loops over heads, queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.nn import attention
from rgjax.nn.attention import Attention, LayerCache, attend, attend_rows
from rgjax.nn.segments import MASKED, segment_bias


def loops(q, k, v, bias, scale):
    """softmax(q k^T scale + bias) v, one number at a time; query head h reads key head h // (H / K)."""
    out = np.zeros_like(q, np.float64)
    b, t, h, _ = q.shape
    for i in range(b):
        for head in range(h):
            kv = head // (h // k.shape[2])
            for query in range(t):
                scores = np.array([q[i, query, head] @ k[i, s, kv] * scale for s in range(k.shape[1])])
                scores = scores + bias[i if bias.shape[0] > 1 else 0, head if bias.shape[1] > 1 else 0, query]
                weights = np.exp(scores - scores.max())
                out[i, query, head] = weights / weights.sum() @ v[i, :, kv]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("bias_heads", [1, 4])
def test_grouped_heads_equal_loops(kv_heads, bias_heads):
    rng = np.random.default_rng(kv_heads)
    q, k, v = rng.normal(size=(2, 3, 4, 6)), rng.normal(size=(2, 5, kv_heads, 6)), rng.normal(size=(2, 5, kv_heads, 6))
    bias = np.where(rng.random((2, bias_heads, 3, 5)) < 0.3, MASKED, rng.normal(size=(2, bias_heads, 3, 5)))
    bias[..., 0] = 0.0
    ours = attend(*(jnp.asarray(x, jnp.float32) for x in (q, k, v, bias)), 0.7)
    np.testing.assert_allclose(ours, loops(q, k, v, bias, 0.7), atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal, keys", [(True, 11), (False, 11), (False, 5), (True, 5)])
def test_row_by_row_equals_all_rows_and_so_do_its_gradients(monkeypatch, kv_heads, causal, keys):
    monkeypatch.setattr(attention, "QUERY_BLOCK", 4)  # 11 queries: two whole blocks and a rest
    rng = np.random.default_rng(kv_heads)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    q, k, v, weight = normal(3, 11, 4, 6), normal(3, keys, kv_heads, 6), normal(3, keys, kv_heads, 6), normal(3, 11, 4, 6)
    # No padding: its queries see nothing, and what they then read means nothing.
    segments = jnp.asarray(rng.integers(1, 3, (3, 11)))
    bias = segment_bias(segments, segments[:, :keys], causal) + normal(1, 4, 11, keys)
    rows, whole = lambda *x: attend_rows(*x, 0.7, causal), lambda *x: attend(*x, 0.7)
    np.testing.assert_allclose(rows(q, k, v, bias), loops(*map(np.asarray, (q, k, v, bias)), 0.7), atol=1e-5)
    gradients = lambda f: jax.grad(lambda *x: jnp.sum(f(*x) * weight), argnums=(0, 1, 2, 3))(q, k, v, bias)
    for ours, truth in zip(gradients(rows), gradients(whole), strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "t5"])
def test_the_module_projects_normalises_and_joins_heads(family):
    config, rng = tiny.config(family, positions="relative" if family == "t5" else "learned"), np.random.default_rng(3)
    module = Attention(config, jax.random.key(0))
    x, bias = rng.normal(size=(2, 5, config.width)).astype(np.float32), np.zeros((1, 1, 5, 5))
    weight = lambda p: np.asarray(p[...], np.float64)
    q, k, v = (np.einsum("btd,dha->btha", x, weight(w)) for w in (module.wq, module.wk, module.wv))
    if config.qk_norm:
        unit = lambda z: z / np.sqrt((z**2).mean(-1, keepdims=True) + config.norm_eps)
        q, k = unit(q), unit(k)
    expected = np.einsum("btha,had->btd", loops(q, k, v, bias, module.scale), weight(module.wo))
    np.testing.assert_allclose(module(jnp.asarray(x), jnp.asarray(bias))[0], expected, atol=1e-4)
    assert module.scale == (1.0 if family == "t5" else 6**-0.5)


def test_writing_into_a_cache_equals_reading_the_whole():
    config = tiny.config("llama")
    module, rng = Attention(config, jax.random.key(0)), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, config.width)), jnp.float32)
    from rgjax.nn import positions

    whole = module(x, segment_bias(jnp.ones((1, 4)), jnp.ones((1, 4)), True), positions.rotary(jnp.arange(4)[None], 6, 1e4))[0]
    cache = LayerCache(*(jnp.full((1, 6, 2, 6), 7.0) for _ in "kv"))
    for i in range(4):
        bias = jnp.where(jnp.arange(6) <= i, 0.0, MASKED)[None, None, None]
        y, cache = module(x[:, i : i + 1], bias, positions.rotary(jnp.array([[i]]), 6, 1e4), cache, i)
        np.testing.assert_allclose(y[0, 0], whole[0, i], atol=1e-5)


def test_segment_bias_allows_the_same_segment_and_the_past():
    bias = np.asarray(segment_bias(jnp.array([[1, 1, 2, 0]]), jnp.array([[1, 1, 2, 0]]), True))[0, 0] == 0
    assert bias.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    cross = np.asarray(segment_bias(jnp.array([[2, 1]]), jnp.array([[1, 2, 2]]), False))[0, 0] == 0
    assert cross.tolist() == [[0, 1, 1], [1, 0, 0]]
