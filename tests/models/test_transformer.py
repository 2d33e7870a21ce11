"""The assembled models: who may read whom, packing, and variants that must not change what is computed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.tasks.reason import sums

ALL = list(tiny.FAMILIES)
A, B = [5, 6, 7, 8, 9, 10], [11, 12, 13, 14]
SA, SB = [21, 22, 23, 24, 25], [26, 27, 28]


def packed(made, first=A, second=B, source_first=SA, source_second=SB):
    batch = tiny.row([first, second], 16)
    return batch | (tiny.row([source_first, source_second], 12, "encoder_") if made.config.architecture == "seq2seq" else {})


def alone(made, tokens, source):
    batch = tiny.row([tokens], 16)
    return batch | (tiny.row([source], 12, "encoder_") if made.config.architecture == "seq2seq" else {})


@pytest.mark.parametrize("family", ALL)
def test_packed_segments_equal_unpacked_rows(family):
    made = tiny.factory(family)
    tree = tiny.params(made)
    both = tiny.hidden(made, tree, packed(made))
    np.testing.assert_allclose(both[0, : len(A)], tiny.hidden(made, tree, alone(made, A, SA))[0, : len(A)], atol=2e-5)
    np.testing.assert_allclose(both[0, len(A) : len(A + B)], tiny.hidden(made, tree, alone(made, B, SB))[0, : len(B)], atol=2e-5)
    assert np.isfinite(both).all()  # padding included


@pytest.mark.parametrize("family", ALL)
def test_a_segment_does_not_see_the_other(family):
    made = tiny.factory(family)
    tree = tiny.params(made)
    before = tiny.hidden(made, tree, packed(made))
    after = tiny.hidden(made, tree, packed(made, second=[40, 41, 42, 43], source_second=[44, 45, 46]))
    np.testing.assert_array_equal(before[0, : len(A)], after[0, : len(A)])
    assert np.abs(before[0, len(A) : len(A + B)] - after[0, len(A) : len(A + B)]).max() > 0.01
    after = tiny.hidden(made, tree, packed(made, first=[40, 41, 42, 43, 44, 45], source_first=[30, 31, 32, 33, 34]))
    np.testing.assert_array_equal(before[0, len(A) : len(A + B)], after[0, len(A) : len(A + B)])


@pytest.mark.parametrize("family", [f for f in ALL if f != "bert"])
def test_a_token_does_not_see_the_future(family):
    made = tiny.factory(family)
    tree = tiny.params(made)
    before, after = (tiny.hidden(made, tree, packed(made, first=A[:4] + end)) for end in ([9, 10], [33, 44]))
    np.testing.assert_array_equal(before[0, :4], after[0, :4])
    assert np.abs(before[0, 4:6] - after[0, 4:6]).max() > 0.01


@pytest.mark.parametrize("family", ["t5", "seq2seq_rotary"])
def test_the_decoder_reads_all_of_its_source_and_the_encoder_looks_both_ways(family):
    made = tiny.factory(family)
    tree = tiny.params(made)
    before = tiny.hidden(made, tree, packed(made))
    after = tiny.hidden(made, tree, packed(made, source_first=SA[:-1] + [49]))
    assert np.abs(before[0, 0] - after[0, 0]).max() > 1e-4
    compiled = jax.jit(lambda batch: made.model(tree).encode(batch))
    encode = lambda source: np.asarray(compiled(alone(made, A, source)))
    assert np.abs(encode(SA)[0, 0] - encode(SA[:-1] + [49])[0, 0]).max() > 1e-4


@functools.cache
def loss_and_gradient(family, **changes):
    made = tiny.factory(family, dropout=0.2, **changes)
    batch, tree = tiny.training_batch(made, 3, 16), tiny.params(made)
    return jax.jit(jax.value_and_grad(lambda p: sums(made.model(p), batch, jax.random.key(0))["loss"]))(tree)


@pytest.mark.parametrize(
    "family, changes",
    [
        ("t5", {"scan": False}),
        ("llama", {"remat": "dots"}),
        ("t5", {"remat": "full"}),
        ("llama", {"remat": "full", "scan": False}),
    ],
)
def test_scan_and_remat_change_neither_loss_nor_gradient(family, changes):
    (loss, tree), (other, other_tree) = loss_and_gradient(family), loss_and_gradient(family, **changes)
    assert float(loss) == pytest.approx(float(other), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3), tree, other_tree)


def matrix_products(jaxpr) -> int:
    """Matrix products in a traced program, those of its inner programs included."""
    count = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [v for v in jax.tree.leaves(list(equation.params.values())) if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
        count += (equation.primitive.name == "dot_general") + sum(map(matrix_products, inner))
    return count


def test_what_a_policy_saves_is_not_computed_again():
    def products(remat):
        made = tiny.factory("llama", remat=remat, scan=False, attention="plain")
        batch, tree = tiny.training_batch(made, 2, 16), tiny.params(made)
        return matrix_products(jax.make_jaxpr(jax.grad(lambda p: sums(made.model(p), batch, None)["loss"]))(tree))

    none, dots, full = products("none"), products("dots"), products("full")
    layers = tiny.config("llama").layers
    assert dots - none == 2 * layers  # scores and weighted values of each attention
    assert full - none >= 8 * layers  # and queries, keys, values, output, three of the feed-forward but one that nothing needs


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_bfloat16_computes_in_halves_and_keeps_float32_parameters(family):
    made, exact = tiny.factory(family, dtype="bfloat16"), tiny.factory(family)
    tree = made.fresh(jax.random.key(0))
    assert {a.dtype for a in jax.tree.leaves(tree)} == {np.dtype("float32")}
    half = tiny.forward(made)(tree, packed(made))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), tiny.hidden(exact, tree, packed(made)), atol=0.15)


def test_fresh_models_start_near_the_uniform_loss():
    for family in ("gpt2", "t5_tied_relu"):
        made = tiny.factory(family, vocab_size=500, width=64, heads=4, head_dim=16, mlp_width=0)
        batch = tiny.training_batch(made, 4, 24)
        found = jax.jit(lambda b, m=made: sums(m.model(m.fresh(jax.random.key(0))), b, None))(batch)
        assert float(found["nll"] / found["tokens"]) == pytest.approx(np.log(500), abs=1.0), family


def test_a_model_comes_back_from_its_parameters():
    made = tiny.factory("qwen3")
    tree = tiny.params(made)
    again = nnx.to_pure_dict(nnx.state(made.model(tree), nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, tree, again)
    assert made.count() == sum(a.size for a in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"head_dim": 0, "width": 30}, "--width=30"),
        ({"kv_heads": 3}, "--kv_heads=3"),
        ({"head_dim": 5}, "even head width"),
    ],
)
def test_shapes_that_do_not_fit_are_named(changes, named):
    with pytest.raises(UserError, match=named):
        ModelFactory(tiny.config("llama", **changes), 50)
