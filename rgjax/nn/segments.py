"""Which positions a query may read: packed examples are segments of a row, and read nothing of each other."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e9  # added to forbidden scores; finite, so that a row of padding stays finite


class Segments(NamedTuple):
    """Each query reads the keys of its own segment, and no later ones if `causal`.

    Every segment is one stretch of its row, and so is padding, 0, which no segment reads; what it reads itself means nothing.
    """

    queries_BT: jax.Array
    keys_BS: jax.Array
    causal: bool
    query_lengths_BM: jax.Array | None = None  # of segments 1 to M, 0 = absent; counted where they aren't given
    key_lengths_BM: jax.Array | None = None

    @classmethod
    def of(cls, batch: dict[str, jax.Array], causal: bool, queries: str = "", keys: str = "") -> Segments:
        """Of a batch's fields, whose names begin with `queries` and `keys` ("" or "encoder_")."""
        ids, lengths = (lambda side: batch[f"{side}segment_ids"]), (lambda side: batch.get(f"{side}segment_lengths"))
        return cls(ids(queries), ids(keys), causal, lengths(queries), lengths(keys))

    def bias(self) -> jax.Array:
        """The same as a float32 bias [B, 1, T, S]."""
        return segment_bias(*self[:3])


def segment_bias(query_segments_BT: jax.Array, key_segments_BS: jax.Array, causal: bool, first: jax.Array | int = 0) -> jax.Array:
    """Float32 bias [B, 1, T, S]: 0 where both positions are of one segment (and the key not later, if causal; queries stand from `first` on)."""
    allowed = (query_segments_BT[:, :, None] == key_segments_BS[:, None, :]) & (key_segments_BS[:, None, :] > 0)
    if causal:
        order_T, order_S = first + jnp.arange(query_segments_BT.shape[1]), jnp.arange(key_segments_BS.shape[1])
        allowed &= order_T[None, :, None] >= order_S[None, None, :]
    return jnp.where(allowed, 0.0, MASKED).astype(jnp.float32)[:, None]


def lengths(segments_BT: jax.Array, most: int) -> jax.Array:
    """How many positions segments 1 to `most` of each row have, int32 [B, most]."""
    return (segments_BT[:, :, None] == 1 + jnp.arange(most)).sum(1, dtype=jnp.int32)


def starts(segments_BT: jax.Array, most: int) -> jax.Array:
    """Where they begin, int32 [B, most]; 0 for one that isn't there."""
    return jnp.argmax(segments_BT[:, :, None] == 1 + jnp.arange(most), axis=1).astype(jnp.int32)
