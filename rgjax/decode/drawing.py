"""Drawing tokens by inverting the cumulative distribution: one uniform number a row, where the Gumbel trick needs one a token."""

from __future__ import annotations

import jax
import jax.numpy as jnp

PART = 64  # tokens of a row added up together


def drawn(weights_RV: jax.Array, uniform_R: jax.Array) -> jax.Array:
    """Token ids int32 [R], each drawn in proportion to its row's weights (at least 0, some above); `uniform_R` lie in [0, 1).

    First the part of the row in which the mass is reached is found, then the place in it: a cumulative sum over whole rows is what
    takes longest on a CPU. A token of weight 0 is never drawn.
    """
    rows, size = weights_RV.shape
    parts_RPC = jnp.pad(weights_RV, ((0, 0), (0, -size % PART))).reshape(rows, -1, PART)
    part, left_R = _reached(jnp.sum(parts_RPC, axis=-1), uniform_R, None)
    inside_RC = jnp.take_along_axis(parts_RPC, part[:, None, None], axis=1)[:, 0]
    place, _ = _reached(inside_RC, None, left_R)
    return (part * PART + place).astype(jnp.int32)


def _reached(weights_RN: jax.Array, uniform_R: jax.Array | None, target_R: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(the first entry by which the cumulative weight exceeds the target, the share of the target that lies in it).

    The target is `uniform_R` of the whole. Rounding may put it beyond the end; then it is the last entry that has any weight.
    """
    mass_RN = jnp.cumsum(weights_RN, axis=-1)
    target_R = uniform_R * mass_RN[:, -1] if target_R is None else jnp.maximum(target_R, 0.0)  # rounding; below 0 it would take what has no weight
    last_R = jnp.max(jnp.where(weights_RN > 0, jnp.arange(weights_RN.shape[1]), 0), axis=-1)
    found_R = jnp.minimum(jnp.sum(mass_RN <= target_R[:, None], axis=-1), last_R)
    before_R = jnp.take_along_axis(mass_RN - weights_RN, found_R[:, None], axis=-1)[:, 0]
    return found_R, target_R - before_R
