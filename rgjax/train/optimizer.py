"""AdamW (Loshchilov & Hutter 2019) with warm-up, a schedule, a decay mask, clipping and learning rates by group."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from rgjax.config import NO_ADAPTER, AdapterConfig, OptimizerConfig
from rgjax.train import adalora, groups

UNDECAYED = (
    "scale", "shift", "bq", "bk", "bv", "bo", "b_in", "b_out", "b_head", "b_vocab", "relative", "places", "types",
    "b_down", "b_up", "l", "e", "m", "k", "v", "table", "gate", "strength",
)  # fmt: skip


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then cosine decay, warm-up-stable-decay (linear at the end) or a constant."""
    peak, final = config.learning_rate, config.learning_rate * config.final_share
    warmup = min(config.warmup_steps, steps)
    rest = max(1, steps - warmup)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, config.final_share)
    elif config.schedule == "wsd":
        decay = max(1, int(config.decay_share * rest))
        after = optax.join_schedules([optax.constant_schedule(peak), optax.linear_schedule(peak, final, decay)], [rest - decay])
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), after], [warmup])


def decay_mask(params: dict) -> dict:
    """True for matrices, which are decayed; False for norms, biases and position tables."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)


def make(config: OptimizerConfig, steps: int, adapter: AdapterConfig = NO_ADAPTER) -> optax.GradientTransformation:
    """The configured AdamW over a plain dict of parameters, with what an adapter's method adds to it."""
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    adamw = optax.adamw(
        schedule(config, steps), config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decay_mask
    )
    scaled = [groups.scale(config)] if config.lr_groups or config.layer_decay != 1.0 else []
    tx = optax.chain(*clip, adamw, *scaled)
    if adapter.base_from:
        tx = optax.chain(tx, _later(adapter.base_from))
    return adalora.allocating(tx, adapter, steps) if adapter.adapter == "adalora" else tx


def _later(step: int) -> optax.GradientTransformation:
    """Holds the model's own parameters still before `step` (two stages: the adapter first, then all)."""

    def update(updates, count, params=None):
        hold = lambda path, u: u if path[0].key == "adapter" else jnp.where(count < step, 0.0, u)
        return jax.tree_util.tree_map_with_path(hold, updates), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
