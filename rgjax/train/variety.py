"""How varied the texts of a batch are, counted on the device that drew them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def variety(tokens_BT: jax.Array, mask_BT: jax.Array) -> dict[str, jax.Array]:
    """Of texts, ids int32 with 1 in the mask at each of their tokens, float32 scalars:

    - `distinct_2`: different pairs of neighbouring tokens over all pairs, 0..1 (Li et al. 2016);
    - `entropy`: of the tokens' frequencies, nats;
    - `self_overlap`: of all pairs, the share that stands in another text of the batch too, 0..1 (the precision of pairs, without clipping, in
      self-BLEU: Zhu et al. 2018).
    """
    return _pairs(tokens_BT, mask_BT) | {"entropy": _entropy(tokens_BT.reshape(-1), mask_BT.reshape(-1) > 0)}


def _pairs(tokens_BT: jax.Array, mask_BT: jax.Array) -> dict[str, jax.Array]:
    b, t = tokens_BT.shape
    here = (mask_BT[:, 1:] > 0).reshape(-1)
    first, second = (jnp.where(here, x.reshape(-1), -1) for x in (tokens_BT[:, :-1], tokens_BT[:, 1:]))
    row = jnp.repeat(jnp.arange(b), t - 1)
    order = jnp.lexsort((row, second, first))  # what is beyond a text comes first
    first, second, row, here = first[order], second[order], row[order], here[order]
    group = jnp.cumsum(_new(first) | _new(second)) - 1
    count = jnp.maximum(jnp.sum(here), 1)
    distinct = jnp.sum((_new(first) | _new(second)) & here)
    lowest, highest = (of(row, group, num_segments=len(row)) for of in (jax.ops.segment_min, jax.ops.segment_max))
    shared = (lowest != highest)[group] & here
    return {"distinct_2": distinct / count, "self_overlap": jnp.sum(shared) / count}


def _entropy(tokens_N: jax.Array, here_N: jax.Array) -> jax.Array:
    tokens_N = jnp.sort(jnp.where(here_N, tokens_N, -1))
    group_N = jnp.cumsum(_new(tokens_N)) - 1
    counts_N = jax.ops.segment_sum(jnp.ones(len(tokens_N)), group_N, num_segments=len(tokens_N))[group_N]
    total = jnp.maximum(jnp.sum(here_N), 1)
    return jnp.sum(jnp.where(tokens_N >= 0, jnp.log(total / counts_N), 0.0)) / total


def _new(sorted_N: jax.Array) -> jax.Array:
    """Whether an entry differs from the one before it."""
    return jnp.concatenate([jnp.ones(1, bool), sorted_N[1:] != sorted_N[:-1]])
