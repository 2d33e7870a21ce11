"""Matrices kept output by input: the products of those kept as usual, and what a decoding loop makes of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.config import ModelConfig
from rgjax.decode.unrolled import FEW, Columns, ready
from rgjax.models.build import ModelFactory
from rgjax.nn.linear import linear, scores
from rgjax.nn.turned import Turned, TurnedTable


@pytest.mark.parametrize(("shape", "axes"), [((6, 10), 1), ((6, 2, 5), 1), ((2, 3, 10), 2)])
@pytest.mark.parametrize("rows", [(1, 1), (4, 1), (2, 3)])
def test_the_same_products(shape, axes, rows):
    keys = jax.random.split(jax.random.key(0), 3)
    w, x = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (*rows, *shape[:axes]))
    bias = jax.random.normal(keys[2], shape[axes:])
    made = Turned(w, axes)
    expected = np.einsum(x, [0, 1, *range(2, 2 + axes)], w, [*range(2, 2 + len(shape))], [0, 1, *range(2 + axes, 2 + len(shape))])
    assert np.allclose(linear(x, made, axes, bias), expected + bias, atol=1e-5)
    assert np.array_equal(made.dense(), w)


def test_the_same_scores():
    keys = jax.random.split(jax.random.key(1))
    table, x = jax.random.normal(keys[0], (11, 6)), jax.random.normal(keys[1], (3, 2, 6))
    assert np.allclose(scores(x, TurnedTable(table)), x @ table.T, atol=1e-5)
    assert scores(x.astype(jnp.bfloat16), TurnedTable(table.astype(jnp.bfloat16))).dtype == jnp.float32


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_what_few_rows_are_multiplied_by(architecture):
    """All matrices of a step stand turned for few rows, the output matrix alone for many."""
    config = ModelConfig(architecture=architecture, width=16, layers=2, heads=2, max_positions=32, activation="swiglu")
    factory = ModelFactory(config, 50)
    model = factory.model(factory.fresh(jax.random.key(2)))
    few, many = ready(model, FEW), ready(model, FEW + 1)
    assert many.blocks is None and isinstance(many.head, Columns) and isinstance(few.head, TurnedTable)
    for i, block in enumerate(few.blocks):
        before = model.blocks()[i]
        parts = [(block.attention, before.attention, n) for n in ("wq", "wk", "wv", "wo")]
        parts += [(block.mlp, before.mlp, n) for n in ("w_in", "w_gate", "w_out")]
        parts += [(block.cross, before.cross, n) for n in ("wq", "wo")] if architecture == "seq2seq" else []
        for now, then, name in parts:
            assert isinstance(getattr(now, name), Turned)
            assert np.array_equal(getattr(now, name).dense(), getattr(then, name)[...])
