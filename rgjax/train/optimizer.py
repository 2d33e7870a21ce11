"""AdamW (Loshchilov & Hutter 2019) with warm-up, a schedule, a decay mask, clipping and learning rates by group."""

from __future__ import annotations

import jax
import optax

from rgjax.config import OptimizerConfig
from rgjax.train import groups

UNDECAYED = ("scale", "shift", "bq", "bk", "bv", "bo", "b_in", "b_out", "b_head", "b_vocab", "relative", "places", "types")


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


def make(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The configured AdamW over a plain dict of parameters."""
    clip = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    adamw = optax.adamw(
        schedule(config, steps), config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decay_mask
    )
    scaled = [groups.scale(config)] if config.lr_groups or config.layer_decay != 1.0 else []
    return optax.chain(*clip, adamw, *scaled)
