"""Prefill: the prompt's keys and values, computed once for a batch of left-padded prompts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.models.causal import CausalLM
from rgjax.nn.attention import MASKED, LayerCache


class Prefilled(NamedTuple):
    """Everything decoding needs of the prompts; rows lead every array."""

    caches: list[LayerCache]  # [R, S + N, K, A]; a cross-attending decoder has no prompt of its own, S = 0 there
    valid: jax.Array  # bool [R, S + N]: cache positions that hold a prompt token
    start: jax.Array  # int32 [R]: position of the first new token
    logits: jax.Array | None  # [R, V] after the prompt; None where the first token is a start token
    sources: list[LayerCache] | None
    source_bias: jax.Array | None


def pad_left(prompts: list[list[int]], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, lengths): int32 [R, length] with each prompt at the right end."""
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    for i, prompt in enumerate(prompts):
        if prompt:
            tokens[i, length - len(prompt) :] = prompt
    return tokens, np.array([len(p) for p in prompts], np.int32)


def score(model, hidden_RD: jax.Array) -> jax.Array:
    """Float32 logits [R, V]."""
    head, shrink = model.head()
    return jnp.einsum("rd,vd->rv", hidden_RD * shrink, head.astype(hidden_RD.dtype), preferred_element_type=jnp.float32)


def _empty(model, rows: int, length: int) -> list[LayerCache]:
    c = model.config
    shape = (rows, length, c.kv_heads or c.heads, c.head_dim or c.width // c.heads)
    return [LayerCache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)) for _ in range(c.layers)]


def prefill(model, tokens_RS: jax.Array, lengths_R: jax.Array, new_tokens: int) -> Prefilled:
    """Reads left-padded prompts [R, S] and leaves room for `new_tokens`."""
    rows, s = tokens_RS.shape
    present = jnp.arange(s)[None] >= s - lengths_R[:, None]
    positions = jnp.maximum(jnp.cumsum(present, axis=1) - 1, 0)
    if isinstance(model, CausalLM):
        valid = jnp.pad(present, ((0, 0), (0, new_tokens)))
        order = jnp.arange(s + new_tokens)
        allowed = valid[:, None, :] & (order[None, None, :] <= jnp.arange(s)[None, :, None])
        mask = jnp.where(allowed, 0.0, MASKED)[:, None]
        hidden, caches = model.decode(tokens_RS, positions, mask, _empty(model, rows, s + new_tokens), jnp.int32(0))
        return Prefilled(caches, valid, lengths_R, score(model, hidden[:, -1]), None, None)
    batch = {"encoder_tokens": tokens_RS, "encoder_segment_ids": present.astype(jnp.int32), "encoder_positions": positions}
    sources = model.cross_caches(model.encode(batch))
    bias = jnp.where(present, 0.0, MASKED)[:, None, None]
    caches = _empty(model, rows, new_tokens)
    return Prefilled(caches, jnp.zeros((rows, new_tokens), bool), jnp.zeros(rows, jnp.int32), None, sources, bias)


def repeat(filled: Prefilled, times: int) -> Prefilled:
    """Each row `times` times over, for several candidates per input."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), filled) if times > 1 else filled


def advance(model, filled: Prefilled, caches, token_R: jax.Array, i: jax.Array, prompt_length: int):
    """Logits [R, V] after feeding token `i` (counting from 0) of the continuation, and the caches."""
    at = prompt_length + i
    order = jnp.arange(filled.valid.shape[1])
    mask = jnp.where(filled.valid | ((order >= prompt_length) & (order <= at))[None], 0.0, MASKED)[:, None, None]
    positions = (filled.start + i)[:, None]
    extra = () if filled.sources is None else (filled.sources, filled.source_bias)
    hidden, caches = model.decode(token_R[:, None], positions, mask, caches, at, *extra)
    return score(model, hidden[:, 0]), caches
