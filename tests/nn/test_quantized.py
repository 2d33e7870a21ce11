"""Matrices in int8: the bound of the rounding, and products equal to those of the dense matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rgjax.config import AdapterConfig
from rgjax.nn.adapters.lowrank import LowRank
from rgjax.nn.linear import dense, linear, scores
from rgjax.nn.quantized import Int8Matrix, Int8Table, quantize

SHAPES = [((5, 7), 1), ((5, 3, 4), 1), ((3, 4, 5), 2)]  # (shape of w, input axes)


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-1e4, 1e4, width=32)))
@example(np.array([[1e-45, 2.6e-43, 1e-37, 3.0]], np.float32))
def test_each_weight_is_within_half_a_scale(w):
    q, s = quantize(w, (0,))
    assert q.dtype == np.int8 and s.dtype == np.float32 and s.shape == (w.shape[1],) and np.abs(q.astype(int)).max() <= 127
    assert np.all(np.abs(w - q * s) <= s * (0.5 + 1e-5))
    assert np.all((np.abs(q.astype(int)).max(0) == 127) | (np.abs(w).max(0) < 2e-36))  # the highest of a channel stays


@pytest.mark.parametrize("shape, axes", SHAPES)
@pytest.mark.parametrize("dtype, error", [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_a_product_is_that_of_the_dense_matrix(shape, axes, dtype, error):
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape).astype(np.float32)
    matrix = Int8Matrix(*map(jnp.asarray, quantize(w, tuple(range(axes)))))
    x = jnp.asarray(rng.normal(size=(2, 6, *shape[:axes])), dtype)
    expected = np.tensordot(np.asarray(x, np.float64), np.asarray(dense(matrix), np.float64), axes)
    found = linear(x, matrix, axes)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=error * np.abs(expected).max())


def test_stacked_layers_are_scaled_apart():
    w = np.random.default_rng(1).normal(size=(3, 4, 5)).astype(np.float32) * np.array([1, 10, 100], np.float32)[:, None, None]
    matrix = Int8Matrix(*map(jnp.asarray, quantize(w, (1,))))
    layer = jax.tree.map(lambda a: a[2], matrix)
    np.testing.assert_allclose(layer.dense(), w[2], atol=float(matrix.s[2].max()) / 2 + 1e-4)


def test_a_low_rank_term_goes_on_top_and_alone_has_a_gradient():
    rng = np.random.default_rng(2)
    w, x = rng.normal(size=(6, 8)).astype(np.float32), jnp.asarray(rng.normal(size=(3, 6)), jnp.float32)
    base = Int8Matrix(*map(jnp.asarray, quantize(w, (0,))))
    values = {"a": jnp.asarray(rng.normal(size=(6, 2)), jnp.float32), "b": jnp.asarray(rng.normal(size=(2, 8)), jnp.float32)}
    config = AdapterConfig(adapter="lora", rank=2, alpha=6.0)
    wrapper = lambda base, values: LowRank(base, values, config, 1)
    expected = x @ (dense(base) + values["a"] @ values["b"] * 3)
    np.testing.assert_allclose(linear(x, wrapper(base, values)), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(wrapper(base, values).dense(), dense(base) + values["a"] @ values["b"] * 3, rtol=1e-5, atol=1e-5)
    loss = lambda base, values: jnp.sum(linear(x, wrapper(base, values)) ** 2)
    ours, theirs = (jax.grad(lambda v, b=b: loss(b, v))(values) for b in (base, dense(base)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_a_table_gives_rows_and_scores():
    rng = np.random.default_rng(3)
    w, x = rng.normal(size=(9, 4)).astype(np.float32), jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    table = Int8Table(*map(jnp.asarray, quantize(w, (1,))))
    full = np.asarray(table.astype(jnp.float32))
    assert np.all(np.abs(full - w) <= np.asarray(table.s)[:, None] * 0.5001) and table[...] is table
    np.testing.assert_array_equal(table[jnp.array([[3, 0], [8, 3]])], full[[[3, 0], [8, 3]]])
    np.testing.assert_allclose(scores(x, table), x @ full.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores(x, jnp.asarray(w)), x @ w.T, rtol=1e-5, atol=1e-5)
