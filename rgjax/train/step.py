"""The training step: pure, compiled once, its state donated."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rgjax import trees
from rgjax.config import OptimizerConfig
from rgjax.models.build import ModelFactory
from rgjax.nn.adapters.lowrank import SINGULAR
from rgjax.parallel import sharding
from rgjax.train.state import TrainState

# A task's loss: (model, batch, dropout key or None) -> dict of float32 sums; "loss" and "tokens" are required.
SumsFn = Callable[..., dict[str, jax.Array]]
NOTHING_FIXED: dict = {"weights": {}}  # what is not trained, where all is
# cuBLAS adds biases and residuals, and applies some activations, within its products. XLA's own products, unless they are off, leave that
# to passes of their own.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False}


def make_loss(factory: ModelFactory, sums_fn: SumsFn, penalty: Callable[[dict, dict], jax.Array] | None = None):
    """`loss(params, fixed, batch, key) -> (sum, sums)` of one micro-batch [rows, ...], as `make_train_step` lowers it."""

    def loss(params: dict, fixed: dict, batch: dict, key: jax.Array) -> tuple[jax.Array, dict]:
        sums = sums_fn(factory.model(trees.join(params, fixed["weights"])), batch, key)
        if penalty is not None:
            sums["penalty"] = penalty(params, fixed) * jnp.maximum(sums["tokens"], 1.0)
            sums["loss"] += sums["penalty"]
        return sums["loss"], sums

    return loss


def make_train_step(
    factory: ModelFactory, sums_fn: SumsFn, tx: optax.GradientTransformation, config: OptimizerConfig,
    penalty: Callable[[dict, dict], jax.Array] | None = None, skip: bool = False, like: TrainState | None = None,
):  # fmt: skip
    """`train_step(state, fixed, batch) -> (state, metrics)`; batch leaves are [accumulate, rows, ...].

    `fixed` holds what is not trained: the other parameters as "weights", and arrays for `penalty(trained, fixed)`. The gradient is
    that of (sum of losses) / (number of target tokens) + penalty, the sums over all micro-batches and devices, so the same
    examples give the same step however they are laid out. With `skip` a step whose loss or gradient is not finite changes nothing
    but its number; which it is, is decided on the device. The state comes back laid out over the mesh as that of `like` (arrays or
    their shapes with shardings), without which the compiler chooses.
    """

    loss = make_loss(factory, sums_fn, penalty)

    def micro(params, fixed, key, carry, batch_and_index):
        grads, sums = carry
        batch, index = batch_and_index
        (_, new_sums), new_grads = jax.value_and_grad(loss, has_aux=True)(params, fixed, batch, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, grads, new_grads), jax.tree.map(jnp.add, sums, new_sums)), None

    def train_step(state: TrainState, fixed: dict, batch: dict) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        first = jax.tree.map(lambda x: x[0], batch)
        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params, fixed, first, jax.random.fold_in(key, 0))
        if config.accumulate > 1:
            rest = jax.tree.map(lambda x: x[1:], batch)
            body = lambda carry, xs: micro(state.params, fixed, key, carry, xs)
            (grads, sums), _ = jax.lax.scan(body, (grads, sums), (rest, jnp.arange(1, config.accumulate)))
        tokens = jnp.maximum(sums["tokens"], 1.0)
        grads = jax.tree.map(lambda g: g / tokens, grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = _average(state, params, config.ema)
        metrics = {k: v / tokens for k, v in sums.items() if k != "tokens"}
        metrics |= {"target_tokens": sums["tokens"], "grad_norm": optax.global_norm(grads)}
        if skip:
            sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            before = (state.params, state.opt_state, state.ema)
            params, opt_state, ema = jax.tree.map(lambda new, old: jnp.where(sound, new, old), (params, opt_state, ema), before)
        return TrainState(state.step + 1, params, opt_state, ema, state.key), metrics

    options = GPU_OPTIONS if jax.default_backend() == "gpu" else None
    if like is None:
        return jax.jit(train_step, donate_argnums=0, compiler_options=options)
    placed = jax.tree.map(lambda a: a.sharding, like)
    return jax.jit(sharding.on_mesh(train_step, placed), donate_argnums=0, out_shardings=(placed, None), compiler_options=options)


def _average(state: TrainState, params: dict, decay: float) -> dict:
    """Exponential moving average whose decay grows from 0, so that early steps do not linger; what AdaLoRA prunes is 0 in it at once."""
    if not decay:
        return state.ema
    n = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + n) / (10.0 + n))

    def one(path, old, new):
        mean = old + rate * (new - old)
        return jnp.where(new == 0, 0.0, mean) if path[-1].key == SINGULAR else mean

    return jax.tree_util.tree_map_with_path(one, state.ema, params)


def make_eval_step(factory: ModelFactory, sums_fn: SumsFn, like: TrainState | None = None):
    """`eval_step(params, batch) -> sums` over one batch [rows, ...], without dropout; `like` as in `make_train_step`."""
    run = lambda params, batch: sums_fn(factory.model(params), batch, None)
    return jax.jit(run if like is None else sharding.on_mesh(run, jax.tree.map(lambda a: a.sharding, like)))
