"""Drawing tokens by inverting the cumulative distribution: one uniform number a row and draw, where the Gumbel trick needs one a token; and among
the likeliest, without sorting the vocabulary.
"""

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


def drawn_of_likeliest(p_RV: jax.Array, top_p: float, keys_R: jax.Array) -> jax.Array:
    """Token ids int32 [R], each drawn in proportion to its row's probabilities among the likeliest tokens that together have a mass of `top_p`
    (Holtzman et al. 2020, arXiv:1904.09751), above 0; tokens as likely as the last of these count too.

    A token is drawn from all and taken if those above it have less than the mass; else none as unlikely comes into question, and the next is
    drawn from what is left: the same distribution as after sorting, in a small part of its time (as FlashInfer does on GPUs, Ye et al. 2025,
    arXiv:2501.01005). Rows wait for the one that takes most rounds: two or three of 64 rows at a `top_p` of .9, more at a small one.
    """
    own = lambda tokens_R: jnp.take_along_axis(p_RV, tokens_R[:, None], axis=1)[:, 0]
    above = lambda least_R: jnp.where(p_RV > least_R[:, None], p_RV, 0.0)

    def again(state: tuple) -> tuple:
        n, tokens_R, floor_R, done_R = state
        uniform_R = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, n)))(keys_R)
        tokens_R = jnp.where(done_R, tokens_R, drawn(above(floor_R), uniform_R))
        done_R |= ~(jnp.sum(above(own(tokens_R)), axis=-1) >= top_p)  # also where it is not a number, or there would be no end
        return n + 1, tokens_R, jnp.where(done_R, floor_R, own(tokens_R)), done_R

    rows = len(p_RV)
    start = (jnp.int32(0), jnp.zeros(rows, jnp.int32), jnp.full(rows, -1.0, p_RV.dtype), jnp.zeros(rows, bool))
    return jax.lax.while_loop(lambda state: ~jnp.all(state[-1]), again, start)[1]


def _reached(weights_RN: jax.Array, uniform_R: jax.Array | None, target_R: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(the first entry by which the cumulative weight exceeds the target, the share of the target that lies in it).

    The target is `uniform_R` of the whole. Rounding may put it beyond the end; then it is the last entry that has any weight.
    """
    mass_RN = jnp.cumsum(weights_RN, axis=-1)
    target_R = uniform_R * mass_RN[:, -1] if target_R is None else jnp.maximum(target_R, 0.0)  # rounding; below 0 it would take what has no weight
    places_N, some_RN = jnp.arange(weights_RN.shape[1]), weights_RN > 0
    last_R = jnp.max(jnp.where(some_RN, places_N, 0), axis=-1)
    # Rounded sums of many parts may rise where a part has no weight.
    found_R = jnp.min(jnp.where((mass_RN > target_R[:, None]) & some_RN, places_N, last_R[:, None]), axis=-1)
    before_R = jnp.take_along_axis(mass_RN - weights_RN, found_R[:, None], axis=-1)[:, 0]
    return found_R, target_R - before_R
