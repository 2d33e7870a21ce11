"""Inverted dropout (Srivastava et al. 2014)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """x with a share of its entries zeroed and the rest scaled up; x itself without a key.

    The share is `rate` rounded to a 256th: four entries are decided by one random word, since drawing words is what costs
    (on CPU, a fourth of a small model's step).
    """
    drop = round(rate * 256)
    if key is None or drop == 0:
        return x
    words = jax.random.bits(key, (*x.shape[:-1], -(-x.shape[-1] // 4)), jnp.uint32)
    octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    return jnp.where(octets >= drop, x * (256 / (256 - drop)), 0).astype(x.dtype)
