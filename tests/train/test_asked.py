"""A model that answers only where there is loss: nothing that training sees may change, and less is multiplied."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import AdapterConfig, InputConfig, ModelConfig
from rgjax.models.adapted import AdaptedFactory
from rgjax.tasks.reason import ReasonTask, sums
from rgjax.train.contrast import Swaps
from rgjax.train.distillation import Distillation
from rgjax.train.loss import asked

KEY = jax.random.key(0)
ROWS, LENGTH, MOST = 3, 24, 7
SWAPS = Swaps.of({"tone": (1, 2), "size": (3, 4)}, 50, 0.5)


def batch_of(made, taught: bool = False) -> dict[str, jax.Array]:
    """Rows of one example with some codes, whose last tokens are targets: 7, 3 and none."""
    batch, rng = tiny.training_batch(made, ROWS, LENGTH), np.random.default_rng(0)
    lengths = np.array([LENGTH, 15, 9])
    batch["segment_ids"] = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    batch["positions"] = np.arange(LENGTH, dtype=np.int32) * batch["segment_ids"]
    batch["tokens"] = np.where(np.arange(LENGTH) < 2, [[1, 3], [2, 4], [1, 4]][0] + [0] * (LENGTH - 2), 5 + batch["tokens"] % 40).astype(np.int32)
    batch["weights"] = (batch["segment_ids"] * (np.arange(LENGTH) >= (lengths - [7, 3, 0])[:, None])).astype(np.int32)
    if taught:
        batch |= {"teacher_ids": rng.integers(0, 50, (ROWS, LENGTH, 4)).astype(np.int32)}
        batch |= {"teacher_logits": rng.normal(size=(ROWS, LENGTH, 5)).astype(np.float32)}
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def made_with(family: str, adapter: str = "none", **changes):
    made = tiny.factory(family, scan=False, **changes)
    return made if adapter == "none" else AdaptedFactory(made, AdapterConfig(adapter=adapter, virtual_tokens=3, rank=2))


def trained(made, batch, most: int, **options):
    """All sums, and the gradient of the loss."""

    def loss(params):
        found = sums(made.model(params), batch, KEY, most=most, **options)
        return found["loss"], found

    return jax.jit(jax.grad(loss, has_aux=True))(tiny.params(made))


def same(made, batch, **options):
    (one, found), (other, expected) = (trained(made, batch, most, **options) for most in (MOST, 0))
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4), one, other)
    assert float(expected["tokens"]) == 10


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize(
    "changes", [{"attention": "rows"}, {"attention": "plain"}, {"remat": "full"}, {"post_norm": True}, {"positions": "relative"}, {"layers": 1}],
    ids=lambda changes: "-".join(map(str, changes.values())),
)  # fmt: skip
def test_neither_sums_nor_gradients_change(family, changes):
    made = made_with(family, **changes)
    same(made, batch_of(made))


@pytest.mark.parametrize("adapter", ["lora", "prefix", "bottleneck", "ia3", "prompt"])
def test_nor_with_an_adapter(adapter):
    made = made_with("llama", adapter)
    same(made, batch_of(made))


def test_nor_under_a_scan_of_layers():
    made = tiny.factory("llama")
    same(made, batch_of(made))


@pytest.mark.parametrize(
    "options", [{"rdrop": 1.0}, {"fgm": 0.3}, {"smoothing": 0.1}, {"distill": Distillation(0.5, 2.0)}, {"swaps": SWAPS}], ids=lambda o: next(iter(o))
)
def test_nor_with_another_loss(options):
    made = made_with("llama")
    same(made, batch_of(made, taught="distill" in options), **options)


def test_evaluation_answers_everywhere():
    """Its rows hold several examples, and more targets than a row of training."""
    made = made_with("llama")
    batch = tiny.training_batch(made, ROWS, LENGTH)
    batch["weights"] = (batch["segment_ids"] > 0).astype(np.int32)
    found, expected = (jax.jit(lambda p, most=most: sums(made.model(p), batch, None, most=most))(tiny.params(made)) for most in (MOST, 0))
    assert batch["weights"].sum(1).max() > MOST and found["nll"] == expected["nll"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9))
def test_all_weighted_positions_are_asked_for(seed, length, most):
    rng = np.random.default_rng(seed)
    weights = np.zeros((4, length), np.int32)
    for row in weights:
        row[rng.permutation(length)[: rng.integers(0, min(most, length) + 1)]] = 1
    batch = {"weights": jnp.asarray(weights), "targets": jnp.asarray(rng.integers(0, 9, (4, length))), "tokens": jnp.zeros((4, length))}
    found = asked(batch, most)
    if most >= length:
        assert found is batch
        return
    places = np.asarray(found["asked"])
    assert places.shape == (4, most) and all(len(set(row)) == most for row in places)  # none twice, so no target counts twice
    for b in range(4):
        assert set(np.flatnonzero(weights[b])) == set(places[b][np.asarray(found["weights"])[b] > 0])
    np.testing.assert_array_equal(found["targets"], np.take_along_axis(np.asarray(batch["targets"]), places, axis=1))


def test_no_row_of_training_has_more_targets(tokenizer, dataset):
    config = InputConfig(length=160, target_length=12, packing=False, buckets="0.5,1", batch_size=4)
    task, most = ReasonTask(tokenizer, config, ModelConfig(max_positions=160)), 0
    stream = task.training_data(dataset, 0)
    for _ in range(12):
        most = max(most, int((next(stream)["weights"] > 0).sum(1).max()))
    stream.close()
    assert task.most_targets == 12 == most  # some reason is as long as it may be
    for changed in ({"packing": True, "buckets": ""}, {"loss_on": "all"}):
        other = dataclasses.replace(config, **changed)
        assert ReasonTask(tokenizer, other, ModelConfig(max_positions=160)).most_targets == 0


def test_xla_multiplies_less():
    """By the last layer's queries, their scores and what they read, its output and feed-forward at the positions not asked for, three times."""
    made = made_with("llama", width=256, head_dim=64, kv_heads=4, mlp_width=1024, attention="plain", vocab_size=8)
    batch = batch_of(made)
    cost = lambda most: jax.jit(jax.grad(lambda p: sums(made.model(p), batch, KEY, most=most)["loss"])).lower(made.fresh(KEY)).compile()
    fewer = ROWS * (LENGTH - MOST)
    expected = 3 * 2 * fewer * (2 * 256 * 256 + 3 * 256 * 1024 + 2 * 256 * LENGTH)
    assert cost(0).cost_analysis()["flops"] - cost(MOST).cost_analysis()["flops"] == pytest.approx(expected, rel=0.03)
