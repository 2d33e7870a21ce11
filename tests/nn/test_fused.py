"""cuDNN's fused attention against dense scores, where there is a GPU that has it; elsewhere how it is asked for and refused."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.nn import fused, segments
from rgjax.nn.attention import attend, chosen
from rgjax.nn.segments import Segments

CONFIG = ModelConfig(width=128, heads=2, dtype="bfloat16", attention="cudnn")
NEEDS_GPU = pytest.mark.skipif(bool(fused.missing(CONFIG)), reason="cuDNN's kernel for packed rows needs a Hopper GPU")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 4), st.integers(0, 3))
def test_lengths_and_starts_are_those_of_the_stretches(sizes, before, after):
    ids = np.concatenate([np.zeros(before), np.repeat(np.arange(1, len(sizes) + 1), sizes), np.zeros(after + 1)]).astype(np.int32)
    lengths, starts = segments.lengths(ids[None], len(sizes)), segments.starts(ids[None], len(sizes))
    assert lengths[0].tolist() == sizes
    expected = [before + sum(sizes[:i]) if size else 0 for i, size in enumerate(sizes)]
    assert starts[0].tolist() == expected


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="tells what is missing without a GPU")
def test_without_a_gpu_it_is_refused_and_never_chosen():
    with pytest.raises(UserError, match="--attention=cudnn can't be had: there is no GPU; set --attention=plain"):
        fused.check(CONFIG)
    assert chosen(dataclasses.replace(CONFIG, attention="auto")) != "cudnn"


@pytest.mark.parametrize(
    "capability, devices, changes, said",
    [
        (9.0, 1, {}, None), (8.0, 1, {}, "need a Hopper GPU"), (9.0, 8, {}, "over several devices .* insist with --attention=cudnn"),
        (8.0, 1, {"attention": "plain"}, None), (8.0, 1, {"dtype": "float32"}, None), (8.0, 8, {"positions": "relative"}, None),
        (9.0, 1, {"width": 100}, "multiples of 8"),
    ],
)  # fmt: skip
def test_a_gpu_does_without_the_kernel_only_where_that_is_asked_for(monkeypatch, capability, devices, changes, said):
    gpus = [types.SimpleNamespace(compute_capability=str(capability), device_kind="a GPU")] * devices
    for name, value in (("default_backend", "gpu"), ("local_devices", gpus), ("device_count", devices)):
        monkeypatch.setattr(jax, name, lambda value=value: value)
    config = dataclasses.replace(CONFIG, **{"attention": "auto"} | changes)
    if said is None:
        return fused.check(config, devices=devices)
    with pytest.raises(UserError, match=said):
        fused.check(config, devices=devices)


def test_the_mesh_decides_and_not_the_machine(monkeypatch):
    """A run on one CPU device of eight attends as on a machine of one."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    config = dataclasses.replace(CONFIG, attention="auto")
    found = {0: chosen(config)}
    for size in (1, 2):
        kinds = (jax.sharding.AxisType.Auto,) * 3
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((size, 1, 1), ("data", "fsdp", "tensor"), axis_types=kinds)):
            found[size] = chosen(config)
    assert found == {0: "plain", 1: "rows", 2: "plain"}


ROWS = {
    "one each": np.repeat([[1], [1]], 128, 1),
    "packed": np.stack([np.repeat([1, 2, 3, 0], [40, 7, 60, 21]), np.repeat([1, 0], [100, 28])]),
    "padding only": np.stack([np.zeros(128, int), np.repeat([1, 2], 64)]),
}


@NEEDS_GPU
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("rows", list(ROWS))
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_outputs_and_gradients_are_those_of_dense_scores(rows, told, causal, kv_heads):
    ids = jnp.asarray(ROWS[rows], jnp.int32)
    lengths = segments.lengths(ids, 3) if told else None
    _compare(ids, ids, Segments(ids, ids, causal, lengths, lengths), kv_heads)


@NEEDS_GPU
def test_across_two_sequences_each_segment_reads_its_own():
    read = jnp.asarray(np.stack([np.repeat([1, 2, 3, 0], [70, 90, 30, 66]), np.repeat([1, 0], [200, 56])]), jnp.int32)
    write = jnp.asarray(ROWS["packed"], jnp.int32)
    _compare(write, read, Segments(write, read, False), 4)


@pytest.mark.parametrize("told", [True, False])
def test_segments_beyond_those_told_are_poisoned(told):
    ids = jnp.asarray(np.repeat([[1, 2, 3, 0]] if told else [[1, 2, 65, 0]], [40, 40, 44, 4], 1), jnp.int32)
    lengths = segments.lengths(ids, 2) if told else None
    out = fused.poisoned(jnp.ones((1, 128, 8), jnp.bfloat16), Segments(ids, ids, True, lengths, lengths))
    assert bool((out[:, :80] == 1).all()) and bool(jnp.isnan(out[:, 80:124]).all()) and bool((out[:, 124:] == 1).all())


def _compare(writes, reads, seen, kv_heads, heads=4, width=64):
    keys = jax.random.split(jax.random.key(0), 4)
    draw = lambda key, ids, n: jax.random.normal(key, (*ids.shape, n, width), jnp.bfloat16)
    q, k, v, weigh = draw(keys[0], writes, heads), draw(keys[1], reads, kv_heads), draw(keys[2], reads, kv_heads), draw(keys[3], writes, heads)
    real = (writes > 0)[..., None, None]

    def run(attention, *read):
        out, back = jax.vjp(lambda *read: jnp.where(real, attention(*read), 0), *read)
        return out, *back(weigh.astype(out.dtype))

    ours = jax.jit(lambda *read: run(lambda q, k, v: fused.attend_cudnn(q, k, v, seen, 0.125), *read))(q, k, v)
    with jax.default_matmul_precision("highest"):
        exact = (x.astype(jnp.float32) for x in (q, k, v))
        expected = jax.jit(lambda *read: run(lambda q, k, v: attend(q, k, v, seen.bias(), 0.125), *read))(*exact)
    for got, wanted in zip(ours, expected, strict=True):
        error = jnp.linalg.norm(got.astype(jnp.float32) - wanted)
        assert float(error) <= 1e-2 * float(jnp.linalg.norm(wanted)), (got.shape, float(error))
