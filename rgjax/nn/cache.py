"""Keys and values that decoding reads again at each step, by head, and attention over them.

A product over them has batch and head as its leading axes, so they lie so: from [B, S, K, A] XLA's CPU backend would write a
transposed copy of all of them at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class HeadCache(NamedTuple):
    """Keys and values [G, K, S, A] of G groups of consecutive rows; rows of a group lie side by side at each position, S = positions x rows."""

    k: jax.Array
    v: jax.Array


def by_head(cache) -> HeadCache:
    """From keys and values [B, S, K, A]."""
    return HeadCache(jnp.swapaxes(cache[0], 1, 2), jnp.swapaxes(cache[1], 1, 2))


def empty(groups: int, rows: int, length: int, kv_heads: int, head_dim: int, dtype) -> HeadCache:
    """Zeros for `length` positions of `rows` rows a group."""
    zeros = jnp.zeros((groups, kv_heads, length * rows, head_dim), dtype)
    return HeadCache(zeros, zeros)


def write(cache: HeadCache, new_R1KA, at: jax.Array) -> HeadCache:
    """The cache with keys and values [R, 1, K, A] of one position `at` of all rows."""

    def put(old, new):
        grouped = new.reshape(old.shape[0], -1, *new.shape[2:]).swapaxes(1, 2).astype(old.dtype)
        return jax.lax.dynamic_update_slice(old, grouped, (0, 0, at * grouped.shape[2], 0))

    return HeadCache(put(cache.k, new_R1KA[0]), put(cache.v, new_R1KA[1]))


def key_positions(cache, rows: int, before: int) -> jax.Array:
    """Positions of all keys that `rows` rows read: `before` of a prompt, then those in a cache; int32."""
    own = jnp.arange(cache.k.shape[2]) // (rows // cache.k.shape[0]) if isinstance(cache, HeadCache) else jnp.arange(cache.k.shape[1])
    return jnp.concatenate([jnp.arange(before), before + own])


def attend_heads(q_RTHA: jax.Array, caches: Sequence[HeadCache], bias_RHTS: jax.Array, scale: float) -> jax.Array:
    """softmax(q k^T * scale + bias) v over the keys of all `caches`, one after another; [R, T, H, A].

    Each key head serves H / K query heads, and each group of a cache R / G rows: reading a prompt once for all its rows is what makes many
    candidates per input cheap. The bias may have 1 for R and H, and covers all keys.
    """
    r, t, h, a = q_RTHA.shape
    kv = caches[0].k.shape[1]
    q = (q_RTHA * scale).reshape(r * t, kv, h // kv, a)
    grouped = lambda x, cache: x.reshape(cache.k.shape[0], -1, *x.shape[1:])
    scores = [jnp.einsum("gnkha,gksa->gnkhs", grouped(q, c), c.k, preferred_element_type=jnp.float32) for c in caches]
    scores = jnp.concatenate([s.reshape(r, t, kv, h // kv, -1) for s in scores], axis=-1)
    bias = jnp.swapaxes(bias_RHTS, 1, 2)
    bias = bias[:, :, :, None] if bias.shape[2] == 1 else bias.reshape(*bias.shape[:2], kv, h // kv, bias.shape[-1])
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(caches[0].v.dtype).reshape(r * t, kv, h // kv, -1)
    out, start = 0.0, 0
    for c in caches:
        part = grouped(weights[..., start : start + c.k.shape[2]], c)
        out = out + jnp.einsum("gnkhs,gksa->gnkha", part, c.v).reshape(r, t, h, a)
        start += c.k.shape[2]
    return out
