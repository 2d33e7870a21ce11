"""Writing with an LSTM: texts of a fixed length, straight-through relaxed ones, and completions of every beginning of a text."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.decode.drawing import drawn
from rgjax.models.lstm import LSTM, Memory

TOGETHER = 256  # rows that draw at once
STRIDE = 5  # positions whose beginnings join together in `completions`


def draw(model: LSTM, hidden_RH: jax.Array, uniform_R: jax.Array, temperature: float = 1.0) -> jax.Array:
    """The next token of each row, int32 [R], by one uniform number each.

    `TOGETHER` rows at a time: their logits stay in a CPU's cache, which makes thousands of rows three times as fast.
    """

    def some(hidden_and_uniform):
        logits_CV = model.logits(hidden_and_uniform[0]) / temperature
        return drawn(jnp.exp(logits_CV - jnp.max(logits_CV, axis=-1, keepdims=True)), hidden_and_uniform[1])

    rows, together = len(hidden_RH), min(TOGETHER, len(hidden_RH))
    parts = lambda x: jnp.pad(x, ((0, -rows % together), *((0, 0),) * (x.ndim - 1))).reshape(-1, together, *x.shape[1:])
    return jax.lax.map(some, (parts(hidden_RH), parts(uniform_R))).reshape(-1)[:rows]


def sample(model: LSTM, key: jax.Array, rows: int, length: int, temperature: float = 1.0) -> jax.Array:
    """Token ids int32 [rows, length], drawn from the model at a temperature."""

    def body(memory, uniform_R):
        token_R = draw(model, memory.hidden, uniform_R, temperature)
        return model.advance(memory, model.embed(token_R)), token_R

    return jax.lax.scan(body, model.begin(rows), jax.random.uniform(key, (length, rows)))[1].T


def relaxed(model: LSTM, key: jax.Array, rows: int, length: int, heat: jax.Array | float) -> jax.Array:
    """One-hot rows float32 [rows, length, V] of drawn tokens, whose gradient is that of softmax((logits + Gumbel noise) / heat).

    Straight-through Gumbel-softmax (Jang et al. 2017, arXiv:1611.01144). The next step is fed the same row, so the gradient
    runs through the whole text.
    """
    size = model.output.shape[-1]

    def body(memory, step_key):
        noisy_RV = model.logits(memory.hidden) + jax.random.gumbel(step_key, (rows, size))
        hard_RV, soft_RV = jax.nn.one_hot(jnp.argmax(noisy_RV, axis=-1), size), jax.nn.softmax(noisy_RV / heat, axis=-1)
        token_RV = jax.lax.stop_gradient(hard_RV - soft_RV) + soft_RV
        return model.advance(memory, token_RV @ model.tokens[...]), token_RV

    return jnp.moveaxis(jax.lax.scan(body, model.begin(rows), jax.random.split(key, length))[1], 0, 1)


def completions(model: LSTM, key: jax.Array, tokens_BT: jax.Array, times: int) -> jax.Array:
    """int32 [T - 1, times, B, T]: entry [t, n, b] keeps the first t + 1 tokens of text b and draws the others anew.

    Beginnings join the batch a `STRIDE` at a time, so that little is spent on tokens that are given, and few steps are compiled.
    """
    b, length = tokens_BT.shape
    memories, keys = model.memories(tokens_BT), jax.random.split(key, length)
    memory = Memory(*(jnp.zeros((0, times, *m.shape[1:])) for m in memories))
    parts = [jnp.broadcast_to(tokens_BT[:, 0], (length - 1, times, b))[None]]
    for first in range(1, length, STRIDE):
        last = min(first + STRIDE, length)
        memory = jax.tree.map(lambda m, n=last - 1: jnp.pad(m, ((0, n - len(m)), *((0, 0),) * 3)), memory)
        steps = jnp.arange(first, last)
        memory, drawn_SKNB = jax.lax.scan(_step(model, tokens_BT, memories), memory, (steps, keys[first:last]))
        later = jnp.broadcast_to(tokens_BT.T[first:last, None, None], (last - first, length - last, times, b))
        parts.append(jnp.concatenate([drawn_SKNB, later], axis=1))
    return jnp.moveaxis(jnp.concatenate(parts), 0, -1)


def _step(model: LSTM, tokens_BT: jax.Array, memories: Memory):
    """The scan's body over (s, key): token s of every beginning [K, times, B]; one that still holds token s keeps it, and the one that ends
    before it joins."""

    def body(memory, step_and_key):
        s, key = step_and_key
        begins_K11 = jnp.arange(len(memory.hidden))[:, None, None]
        joins = lambda old, new: jnp.where((begins_K11 == s - 1)[..., None], new[s], old)
        memory = jax.tree.map(joins, memory, memories)
        shape = memory.hidden.shape[:-1]
        flat = jax.tree.map(lambda m: m.reshape(-1, m.shape[-1]), memory)
        token_R = draw(model, flat.hidden, jax.random.uniform(key, (len(flat.hidden),)))
        flat = model.advance(flat, model.embed(token_R))
        token_KNB = jnp.where(begins_K11 < s, token_R.reshape(shape), tokens_BT[:, s])
        return jax.tree.map(lambda m, like: m.reshape(like.shape), flat, memory), token_KNB

    return body
