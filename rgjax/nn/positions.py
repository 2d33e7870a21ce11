"""Positions of a row: what lies there; rotary embeddings (Su et al. 2021, half-split as in Llama), T5's relative buckets (Raffel et al. 2020)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def rotary(positions_BT: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """cos and sin tables [B, T, 1, A/2] in float32."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]


def rotate(x_BTHA: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates each pair (i, i + A/2) by its angle."""
    cos, sin = (t.astype(x_BTHA.dtype) for t in tables)
    first, second = jnp.split(x_BTHA, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def relative_buckets(query_T: jax.Array, key_S: jax.Array, bidirectional: bool, buckets: int, distance: int) -> jax.Array:
    """T5's bucket of each (query, key) distance, int32 [T, S]: exact up close, logarithmic up to `distance`."""
    offset = key_S[None, :] - query_T[:, None]
    base = jnp.zeros_like(offset)
    if bidirectional:
        buckets //= 2
        base = jnp.where(offset > 0, buckets, 0)
        offset = jnp.abs(offset)
    else:
        offset = -jnp.minimum(offset, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(offset, 1).astype(jnp.float32) / exact) / math.log(distance / exact)
    far = jnp.minimum(exact + (ratio * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return base + jnp.where(offset < exact, offset, far)


def at(x_BTD: jax.Array, asked_BN: jax.Array) -> jax.Array:
    """[B, N, ...] of these positions of each row."""
    return jnp.take_along_axis(x_BTD, asked_BN.reshape(*asked_BN.shape, *(1,) * (x_BTD.ndim - 2)), axis=1)
