"""Drawing tokens by inverting the cumulative distribution: one uniform number a row, where the Gumbel trick needs one a token; and from which
of them, without sorting the vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

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


def nucleus(p_RV: jax.Array, top_p: float) -> jax.Array:
    """Probabilities with 0 for what is outside of the likeliest tokens that together have a mass of `top_p` (Holtzman et al. 2020,
    arXiv:1904.09751), 0 < top_p < 1; tokens as likely as the last of these stay too.

    The least probability that stays is found by bisection over the bits of float32, which are in the order of the numbers: exact, and on a CPU an
    eighth of the time that sorting takes.
    """
    size = p_RV.shape[-1]
    bits_RV = jax.lax.bitcast_convert_type(p_RV, jnp.int32)
    least = int(np.float32((1 - top_p) / (2 * size)).view(np.int32))  # all that is below has not enough mass to be missed, twice over
    most = int(np.float32(2).view(np.int32))

    def halved(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_R, high_R = bounds
        middle_R = low_R + (high_R - low_R) // 2
        enough_R = jnp.sum(jnp.where(bits_RV >= middle_R[:, None], p_RV, 0.0), axis=-1) >= top_p
        return jnp.where(enough_R, middle_R, low_R), jnp.where(enough_R, high_R, middle_R)

    bounds = (jnp.full(len(p_RV), least, jnp.int32), jnp.full(len(p_RV), most, jnp.int32))
    low_R, _ = jax.lax.fori_loop(0, (most - least).bit_length(), halved, bounds)
    return jnp.where(bits_RV >= low_R[:, None], p_RV, 0.0)


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
