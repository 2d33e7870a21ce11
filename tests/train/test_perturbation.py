"""FGM: shifts of the asked length along each example's own gradient, and the loss that a step then lowers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.models.adapted import AdaptedFactory
from rgjax.tasks.reason import ReasonTask, sums
from rgjax.train import perturbation

KEY = jax.random.key(0)


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_each_example_is_moved_along_its_own_gradient(family):
    """Against each example alone in its row, whose gradient is that of the embedding table's rows by finite differences of the loss."""
    made = tiny.factory(family)
    params, epsilon = tiny.params(made), 0.3
    batch = tiny.training_batch(made, 3, 16)
    batch["weights"] = (batch["segment_ids"] > 0).astype(np.int32)
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    found = jax.jit(lambda p, b: perturbation.shifts(made.model(p), b, KEY, epsilon))(params, batch)
    loss = jax.jit(lambda p, b: sums(made.model(p), b, None)["nll"])
    for side in ("", "encoder_") if family == "bart" else ("",):
        ids, shift = np.asarray(batch[f"{side}segment_ids"]), np.asarray(found[f"{side}shift"])
        assert not shift[ids == 0].any()
        for b in range(3):
            for segment in range(1, ids[b].max() + 1):
                mine = shift[b][ids[b] == segment]
                np.testing.assert_allclose(np.linalg.norm(mine), epsilon, rtol=1e-4)
        # A small step along one example's shift raises the loss by (its gradient's length) * step, and across it by nothing.
        one = np.where((np.arange(3)[:, None] == 1) & (ids == 1), 1.0, 0.0)[..., None]
        along = jnp.asarray(shift * one / epsilon, jnp.float32)
        other = jnp.asarray(np.random.default_rng(0).normal(size=shift.shape) * one, jnp.float32)
        across = other - along * jnp.sum(other * along)
        at = lambda d, side=side: float(loss(params, batch | {f"{side}shift": d}))
        slope = lambda d, at=at: (at(1e-2 * d) - at(-1e-2 * d)) / 2e-2
        steepest = slope(along)
        assert steepest > 0.1 and abs(slope(across / jnp.linalg.norm(across))) < 0.05 * steepest


@pytest.mark.parametrize("adapter", ["lora", "prompt", "bottleneck"])
def test_an_adapters_model_is_perturbed_as_the_merged_one(adapter):
    """Untrained adapters but the prompt change nothing, so neither the examples' gradients."""
    base = tiny.factory("llama")
    made = AdaptedFactory(base, AdapterConfig(adapter=adapter, virtual_tokens=1))
    batch = {k: jnp.asarray(v) for k, v in tiny.training_batch(base, 3, 16).items()}
    weights = tiny.params(base) | {"adapter": made.fresh(KEY)["adapter"]}
    loss = lambda w: sums(made.model(w), batch, None)["loss"]
    found = jax.jit(lambda w: perturbation.shifts(made.model(w), batch, KEY, 0.3))(weights)["shift"]
    if adapter != "prompt":
        plain = jax.jit(lambda w: perturbation.shifts(base.model(w), batch, KEY, 0.3))(tiny.params(base))["shift"]
        np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-5)
    moved = jax.jit(jax.grad(lambda w: sums(made.model(w), batch, KEY, fgm=0.3)["loss"]))(weights)
    assert float(loss(weights)) > 0 and any(jnp.abs(g).max() > 0 for g in jax.tree.leaves(moved["adapter"]))


def test_a_step_lowers_both_losses_and_tells_that_of_the_examples():
    made = tiny.factory("llama")
    params = tiny.params(made)
    batch = {k: jnp.asarray(v) for k, v in tiny.training_batch(made, 3, 16).items()}
    told = jax.jit(lambda p: sums(made.model(p), batch, KEY, fgm=0.5))(params)
    plain = jax.jit(lambda p: sums(made.model(p), batch, KEY))(params)
    assert float(told["nll"]) == pytest.approx(float(plain["nll"]), rel=1e-5) and float(told["loss"]) > 2 * float(plain["loss"])
    moved = jax.jit(lambda p: perturbation.shifts(made.model(p), batch, KEY, 0.5))(params)
    both = lambda p: sums(made.model(p), batch, KEY)["loss"] + sums(made.model(p), batch | moved, KEY)["loss"]
    expected, found = (jax.jit(jax.grad(f))(params) for f in (both, lambda p: sums(made.model(p), batch, KEY, fgm=0.5)["loss"]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected)
    unkeyed = jax.jit(lambda p: sums(made.model(p), batch, None, fgm=0.5))(params)
    assert float(unkeyed["loss"]) == pytest.approx(float(unkeyed["nll"]))


def test_losses_that_are_not_joined(tokenizer):
    from rgjax.config import InputConfig, ModelConfig

    task = ReasonTask(tokenizer, InputConfig(), ModelConfig(dropout=0.1))
    with pytest.raises(UserError, match="--fgm=0.5 and --rdrop"):
        task.loss(0.0, rdrop=1.0, fgm=0.5)
