"""profiling.program and profiling.costs against closed forms: a loop's products, its source, what a fusion reads, the model's FLOPs."""

import jax
import jax.numpy as jnp
import pytest
import tiny
from flax import nnx

from profiling import costs
from profiling.program import Program, arrays, size
from rgjax.config import OptimizerConfig
from rgjax.tasks.reason import sums
from rgjax.train import optimizer
from rgjax.train.loss import cross_entropy_sums
from rgjax.train.state import TrainState
from rgjax.train.step import NOTHING_FIXED, make_train_step


def program(function, *shapes) -> Program:
    return Program.of(jax.jit(function).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).compile())


def test_a_product_in_a_loop_counts_as_often_as_it_runs():
    made = program(lambda x, w: jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, length=7)[0], (8, 16), (16, 16))
    assert sum(i.times * costs.matrix_flops(made, i) for i in made) == 7 * 2 * 8 * 16 * 16
    assert not made.unknown_loops


def test_a_loop_without_a_trip_count_is_told():
    made = program(lambda x: jax.lax.while_loop(lambda x: x.sum() < 1e3, lambda x: x * 2.5, x), (8,))
    assert len(made.unknown_loops) == 1


def test_the_heavier_branch_counts():
    made = program(lambda p, x: jax.lax.cond(p[0] > 0, lambda x: jnp.tanh(x @ x @ x), lambda x: x, x), (1,), (32, 32))
    assert sum(i.times * costs.matrix_flops(made, i) for i in made) == 2 * 2 * 32**3


@pytest.mark.parametrize("pieces, products", [(3, 3), (1.5, 3), (3, 2)])
def test_the_loop_of_the_loss_counts_its_pieces(pieces, products):
    """Logits, and a product for the gradient of hidden states and of the head, where that is trained; nothing is computed again."""
    kinds = (((2, 96, 16), "float32"), ((50, 16), "float32"), ((2, 96), "int32"), ((2, 96), "float32"))
    arguments = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
    made = Program.of(jax.jit(jax.grad(lambda *a: cross_entropy_sums(*a)[0], range(products - 1))).lower(*arguments).compile(), pieces)
    assert sum(i.times * costs.matrix_flops(made, i) for i in made) == products * pieces * 2 * 2 * 32 * 16 * 50 and not made.unknown_loops


def test_sources_are_the_innermost_rgjax_calls():
    made = tiny.factory("llama", scan=False, attention="plain")
    batch = tiny.training_batch(made, 2, 16)
    text = Program.of(jax.jit(jax.grad(lambda p: made.model(p)(batch).sum())).lower(nnx.to_pure_dict(made.abstract)).compile())
    dots = [i for i in text if i.opcode == "dot"]
    found = {(costs.module(text, i), costs.source(text, i).partition(":")[0]) for i in dots}
    assert {("feed-forward", "FeedForward.__call__"), ("attention", "Attention.__call__"), ("attention", "attend")} <= found
    for i in dots:  # innermost first: the test's own call lies outside the model's
        calls = [frame.function for frame in text.frames(i)]
        assert calls.index("Block.__call__") < calls.index("Stack.__call__") < calls.index("CausalLM.__call__")
        assert any("test_sources" in call for call in calls[calls.index("CausalLM.__call__") :])


@pytest.mark.parametrize("scan", [True, False])
def test_matrix_flops_of_a_step_are_those_of_the_formula(scan):
    """Forward, and twice that backward."""
    d, f, t, rows, layers, v = 20, 28, 32, 4, 2, 50
    made = tiny.factory("llama", v, scan=scan, kv_heads=4, attention="plain")
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), tiny.training_batch(made, rows, t))
    config = OptimizerConfig()
    tx, params = optimizer.make(config, 10), nnx.to_pure_dict(made.abstract)
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(tx.init, params), {}, key)
    found = costs.by_module(Program.of(make_train_step(made, sums, tx, config).lower(state, NOTHING_FIXED, batch).compile(), 1))
    tokens, heads = rows * t, 4 * 6
    assert found["feed-forward"].matrix == 3 * 2 * tokens * layers * 3 * d * f
    assert found["attention"].matrix == 3 * 2 * tokens * layers * (4 * d * heads + 2 * t * heads)
    assert found["head and loss"].matrix == 3 * 2 * tokens * d * v
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert 10 * parameters < found["optimizer"].flops < 40 * parameters
    assert found["optimizer"].bytes > 7 * 4 * parameters  # reads parameter, gradient, two moments; writes three


def test_flops_are_those_of_xla_where_nothing_loops():
    compiled = jax.jit(lambda x, w, b: (jnp.maximum(x @ w + b, 0) * 2 - x).sum()).lower(*[jnp.ones((64, 64))] * 3).compile()
    made = Program.of(compiled)
    assert sum(i.times * costs.flops(made, i) for i in made) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.02)


def test_a_slice_read_in_a_loop_counts_as_the_slice():
    """Seven slices of 1 KiB are read, not seven times the whole stack; the carried sum is read and written."""
    made = program(lambda stack: jax.lax.scan(lambda total, x: (total + x * x, None), jnp.zeros(256), stack)[0], (7, 256))
    moved = sum(i.times * costs.moved(made, i) for i in made)
    assert 7 * 1024 <= moved <= 7 * 6 * 1024


def test_shapes_are_read():
    assert arrays("(f32[2,3]{1,0}, /*index=5*/pred[], bf16[4]{0}, u4[3])") == [("f32", (2, 3)), ("pred", ()), ("bf16", (4,)), ("u4", (3,))]
    assert [size(*a) for a in arrays("(f32[2,3], pred[], bf16[4], u4[3], f8e4m3fn[5])")] == [24, 1, 8, 2, 5]


CUBLAS = """HloModule jit_f

ENTRY %main (a: f32[8,16], b: f32[16,32]) -> f32[8,32] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[16,32]{1,0} parameter(1)
  %gemm = (f32[8,32]{1,0}, s8[4096]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  ROOT %out = f32[8,32]{1,0} get-tuple-element(%gemm), index=0
}
"""  # noqa: E501


@pytest.mark.parametrize("target", ["__cublas$gemm", "__cublas$lt$matmul"])
def test_a_product_handed_to_cublas_counts(target):
    made = Program(CUBLAS.replace("__cublas$gemm", target))
    assert sum(costs.matrix_flops(made, i) for i in made) == 2 * 8 * 16 * 32


FUSED = """HloModule step

ENTRY %main (q: bf16[2,96,4,32], k: bf16[2,80,2,32], v: bf16[2,80,2,32], f: f32[2,4,96]) -> bf16[2,96,4,32] {
  %q = bf16[2,96,4,32]{3,2,1,0} parameter(0)
  %k = bf16[2,80,2,32]{3,2,1,0} parameter(1)
  %v = bf16[2,80,2,32]{3,2,1,0} parameter(2)
  %f = f32[2,4,96]{2,1,0} parameter(3)
  %a = (bf16[2,96,4,32]{3,1,2,0}, f32[2,4,96]{2,1,0}, u8[0]{0}) custom-call(%q, %k, %v), \
custom_call_target="__cudnn$fmhaSoftmax", backend_config=CONFIG
  %o = bf16[2,96,4,32]{3,1,2,0} get-tuple-element(%a), index=0
  %b = (bf16[2,96,4,32]{3,1,2,0}, bf16[2,80,2,32]{3,1,2,0}, bf16[2,80,2,32]{3,1,2,0}, u8[64]{0}) custom-call(%q, %k, %v, %f, %q, %o), \
custom_call_target="__cudnn$fmhaSoftmaxBackward", backend_config=CONFIG
  ROOT %g = bf16[2,96,4,32]{3,1,2,0} get-tuple-element(%b), index=0
}
"""
SETTINGS = """{"operation_queue_id":"0","cudnn_fmha_backend_config":{"algorithm":{"algo_id":"0","tuning_knobs":{"17":"1"}},"fmha_scale":0.17,\
"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","4","96","80"],"tuple_shapes":[],"layout":{"minor_to_major":["3"]}},\
"is_flash_attention":true,"mask_type":"MASK"}}"""


@pytest.mark.parametrize("mask, share", [("NO_MASK", 1), ("PADDING", 1), ("CAUSAL", 0.5), ("PADDING_CAUSAL", 0.5)])
def test_fused_attention_counts_its_products(mask, share):
    """Scores and their sums of values; backwards the scores again, and a product for each of the gradients of values, scores, keys and queries."""
    made = Program(FUSED.replace("CONFIG", SETTINGS.replace("MASK", mask)))
    product = 2 * 2 * 4 * 96 * 80 * 32
    assert costs.matrix_flops(made, made.by_name["a"]) == 2 * share * product
    assert costs.matrix_flops(made, made.by_name["b"]) == 5 * share * product
    assert sum(costs.matrix_flops(made, i) for i in made) == 7 * share * product
