"""Matrices kept output by input: the products of those kept as usual, and what a decoding loop makes of a model."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.config import DecodeConfig, ModelConfig
from rgjax.data.template import Rendered
from rgjax.decode import unrolled
from rgjax.decode.unrolled import FEW, Columns, Ready, Unrolled, ready
from rgjax.decode.writer import Writer
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
    x, table = x.astype(jnp.bfloat16), table.astype(jnp.bfloat16)  # whose products add up in float32
    assert np.allclose(scores(x, TurnedTable(table)), x.astype(np.float32) @ table.astype(np.float32).T, atol=1e-5)


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_what_few_rows_are_multiplied_by(architecture):
    """All matrices of a step stand turned for few rows, the output matrix alone for many; what is computed stays."""
    config = ModelConfig(architecture=architecture, width=16, layers=2, heads=2, max_positions=32, activation="swiglu")
    factory = ModelFactory(config, 50)
    model = factory.model(factory.fresh(jax.random.key(2)))
    few, many = ready(model, FEW), ready(model, FEW + 1)
    assert few.head is None and many.matrices is None
    names = {"attention": {"wq", "wk", "wv", "wo"}, "cross": {"wq", "wo"} if architecture == "seq2seq" else set()}
    names |= {"mlp": {"w_in", "w_gate", "w_out"}}
    for block, parts in zip(model.blocks(), few.matrices, strict=True):
        assert {part: set(held) for part, held in parts.items()} == names
        for part, held in parts.items():
            for name, matrix in held.items():
                assert np.array_equal(matrix.dense(), getattr(getattr(block, part), name)[...])
    x = jax.random.normal(jax.random.key(3), (2, 16))
    heads = [Unrolled(model, made).head()[0] for made in (few, many, Ready())]
    assert isinstance(heads[0], TurnedTable) and isinstance(heads[1], Columns) and not hasattr(heads[2], "scores")
    for head in heads[:2]:
        assert np.allclose(scores(x, head), scores(x, heads[2]), atol=1e-5)


def test_many_rows_write_what_few_write(tokenizer, monkeypatch):
    """Greedy texts of one batch, with matrices turned and with the output matrix alone as columns."""
    made = tiny.factory("llama", tokenizer.vocab_size)
    prompts = [Rendered([5, 7, 11 + i], [], {}, False) for i in range(3)]
    texts = []
    for most in (FEW, 0):
        monkeypatch.setattr(unrolled, "FEW", most)
        writer = Writer(made, tiny.params(made), tokenizer, DecodeConfig(max_new_tokens=6, decode_batch=4))
        texts.append([h[0].ids for h in writer.write(prompts)])
    assert texts[0] == texts[1] and len({tuple(ids) for ids in texts[0]}) > 1


def test_a_writer_that_let_go_writes_again_with_what_it_is_given(tokenizer):
    made = tiny.factory("llama", tokenizer.vocab_size)
    params = jax.tree.map(jnp.copy, tiny.params(made))
    writer = Writer(made, params, tokenizer, DecodeConfig(max_new_tokens=6, decode_batch=4))
    write = lambda: [h[0].ids for h in writer.write([Rendered([5, 7, 11], [], {}, False)])]
    first, kept = write(), [weakref.ref(jax.tree.leaves(tree)[0]) for tree in (params, writer._prepared())]
    writer.release()
    del params
    assert [one() for one in kept] == [None, None]  # nothing holds them any more
    writer.params = tiny.params(made)
    assert write() == first
