"""Prefill: the prompt's keys and values, computed once for a batch of left-padded prompts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.nn import cache as cache_lib
from rgjax.nn.attention import LayerCache
from rgjax.nn.cache import HeadCache
from rgjax.nn.linear import scores
from rgjax.nn.segments import MASKED


class Prefilled(NamedTuple):
    """What decoding reads of the prompts, one row per input; several candidates of an input share it."""

    prefixes: list[HeadCache] | None  # keys and values of the prompt [B, K, S, A]; None for an encoder-decoder
    valid: jax.Array  # bool [B, S]: prefix positions that hold a prompt token; S = 0 for an encoder-decoder
    start: jax.Array  # int32 [B]: position of the first new token
    logits: jax.Array | None  # [B, V] after the prompt; None where the first token is a start token
    sources: list[HeadCache] | None  # keys and values of the encoder's output
    source_bias: jax.Array | None  # [B, 1, 1, S]


def pad_left(prompts: list[list[int]], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, lengths): int32 [B, length] with each prompt at the right end."""
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    for i, prompt in enumerate(prompts):
        if prompt:
            tokens[i, length - len(prompt) :] = prompt
    return tokens, np.array([len(p) for p in prompts], np.int32)


def score(model, hidden_RD: jax.Array) -> jax.Array:
    """Float32 logits [R, V]."""
    head, shrink = model.head()
    return scores(hidden_RD * shrink, head)


def empty_caches(model, rows: int, length: int, together: int = 1) -> list[HeadCache]:
    """Empty caches for `length` positions of `rows` continuations, one per decoder layer; `together` consecutive rows share one."""
    c = model.config
    shape = (c.kv_heads or c.heads, c.head_dim or c.width // c.heads)
    return [cache_lib.empty(rows // together, together, length, *shape, c.dtype) for _ in range(c.layers)]


def prefill(model, tokens_BS: jax.Array, lengths_B: jax.Array) -> Prefilled:
    """Reads left-padded prompts [B, S]."""
    b, s = tokens_BS.shape
    present = jnp.arange(s)[None] >= s - lengths_B[:, None]
    positions = jnp.maximum(jnp.cumsum(present, axis=1) - 1, 0)
    if model.config.architecture == "causal":
        order = jnp.arange(s)
        mask = jnp.where(present[:, None, :] & (order[None, None, :] <= order[None, :, None]), 0.0, MASKED)[:, None]
        c = model.config
        empty = jnp.zeros((b, s, c.kv_heads or c.heads, c.head_dim or c.width // c.heads), c.dtype)
        hidden, caches = model.decode(tokens_BS, positions, mask, [LayerCache(empty, empty)] * c.layers, jnp.int32(0), newest=True)
        return Prefilled([cache_lib.by_head(c) for c in caches], present, lengths_B, score(model, hidden[:, -1]), None, None)
    batch = {"encoder_tokens": tokens_BS, "encoder_segment_ids": present.astype(jnp.int32), "encoder_positions": positions}
    sources = [cache_lib.by_head(c) for c in model.cross_caches(model.encode(batch))]
    bias = jnp.where(present, 0.0, MASKED)[:, None, None]
    return Prefilled(None, jnp.zeros((b, 0), bool), jnp.zeros(b, jnp.int32), None, sources, bias)


def repeat(tree, times: int):
    """Each leading row `times` times over, for several candidates per input."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), tree) if times > 1 else tree


def advance(
    model, filled: Prefilled, caches: list[HeadCache], token_R: jax.Array, i: jax.Array, lines_RN: jax.Array | None = None,
    at: jax.Array | None = None,
):  # fmt: skip
    """Logits [R, V] after feeding token `i` (counting from 0; of all rows, or [R]) of the continuations, and their caches.

    Where rows share a cache, `lines_RN` says which of them wrote the token that a row has at each place. Tokens are written at the place `at`
    (`i` by default) of the caches, those before them at the places before, the last place before the first.
    """
    at = i if at is None else at
    rows = len(token_R)
    copies, together = rows // len(filled.start), rows // len(caches[0].k)
    n = caches[0].k.shape[2] // together
    own = (at - jnp.arange(n)) % n <= jnp.broadcast_to(i, rows)[:, None]
    if lines_RN is not None:
        own = (own[:, :, None] & (lines_RN[:, :, None] == jnp.arange(together))).reshape(rows, -1)
    readable = jnp.concatenate([repeat(filled.valid, copies), own], axis=1)
    mask = jnp.where(readable, 0.0, MASKED)[:, None, None]
    positions = (repeat(filled.start, copies) + i)[:, None]
    extra = (filled.prefixes,) if filled.sources is None else (filled.sources, filled.source_bias)
    hidden, caches = model.decode(token_R[:, None], positions, mask, caches, at, *extra)
    return score(model, hidden[:, 0]), caches
