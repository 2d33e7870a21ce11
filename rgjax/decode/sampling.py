"""Greedy decoding and sampling in one compiled loop that ends when every row has ended."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.config import DecodeConfig
from rgjax.decode import prompt
from rgjax.decode.rules import NEVER, RowRules, Rules

PART = 128  # tokens of a row looked at together by `likeliest`


def choose(logits_RV: jax.Array, keys_R: jax.Array, i: jax.Array, config: DecodeConfig) -> jax.Array:
    """Next tokens int32 [R]: the likeliest, or drawn after temperature, top-k and top-p.

    A row's draw depends on its own key and the step only, never on the rest of the batch. Drawing inverts the cumulative
    distribution, one uniform number per row.
    """
    if config.method == "greedy":
        return likeliest(logits_RV)
    uniform = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, i)))(keys_R)[:, None]
    logits, order = logits_RV / config.temperature, None
    if config.top_k or config.top_p < 1.0:
        logits, order = jax.lax.top_k(logits, min(config.top_k or logits.shape[-1], logits.shape[-1]))
    p = jax.nn.softmax(jnp.where(logits <= NEVER / config.temperature, -jnp.inf, logits), axis=-1)
    if config.top_p < 1.0:
        before = jnp.cumsum(p, axis=-1) - p
        p = jnp.where(before < config.top_p, p, 0.0)  # the token that crosses the mass stays, so one always does
    mass = jnp.cumsum(p, axis=-1)
    pick = jnp.sum(mass <= uniform * mass[:, -1:], axis=-1)
    pick = jnp.minimum(pick, p.shape[-1] - 1)
    if order is not None:
        pick = jnp.take_along_axis(order, pick[:, None], axis=1)[:, 0]
    return pick.astype(jnp.int32)


def likeliest(logits_RV: jax.Array) -> jax.Array:
    """The first index of each row's maximum, int32 [R]: first the part of the row that holds it, then its place there.

    XLA's argmax of a whole row takes as long on a CPU as the product with the output matrix.
    """
    rows, size = logits_RV.shape
    parts = jnp.pad(logits_RV, ((0, 0), (0, -size % PART)), constant_values=-jnp.inf).reshape(rows, -1, PART)
    which = jnp.argmax(jnp.max(parts, axis=-1), axis=-1)
    place = jnp.argmax(jnp.take_along_axis(parts, which[:, None, None], axis=1)[:, 0], axis=-1)
    return (which * PART + place).astype(jnp.int32)


def decode(model, filled: prompt.Prefilled, rows: RowRules, keys_R, rules: Rules, config: DecodeConfig, start_id: int):
    """Continues every row; returns tokens int32 [R, N] (-1 beyond the end token) and summed log-probabilities float32 [R].

    R is a multiple of the inputs: consecutive rows continue the same input.
    """
    n, count = config.max_new_tokens, keys_R.shape[0]
    caches = prompt.empty_caches(model, count, n)

    def pick(logits, tokens, i, length):
        logits = rules.apply(logits, tokens, i, length, rows)
        token = choose(logits, keys_R, i, config)
        gain = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        return token, gain

    def body(carry):
        i, tokens, token, done, length, total, caches = carry
        logits, caches = prompt.advance(model, filled, caches, token, i if filled.logits is None else i - 1)
        new, gain = pick(logits, tokens, i, length)
        tokens, new_done, length, total = _record(tokens, new, gain, i, done, length, total)
        return i + 1, tokens, new, new_done, length, total, caches

    def _record(tokens, new, gain, i, done, length, total):
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, jnp.where(done, -1, new), i, axis=1)
        length = length + jnp.where(done, 0, rules.length(new, i, rows))
        return tokens, done | (rules.ended(new)), length, total + jnp.where(done, 0.0, gain)

    tokens = jnp.full((count, n), -1, jnp.int32)
    done, length, total = jnp.zeros(count, bool), jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.float32)
    if filled.logits is None:
        carry = (jnp.int32(0), tokens, jnp.full(count, start_id, jnp.int32), done, length, total, caches)
    else:
        first = prompt.repeat(filled.logits, count // filled.logits.shape[0])
        new, gain = pick(first, tokens, jnp.int32(0), length)
        tokens, done, length, total = _record(tokens, new, gain, 0, done, length, total)
        carry = (jnp.int32(1), tokens, new, done, length, total, caches)
    out = jax.lax.while_loop(lambda c: (c[0] < n) & ~jnp.all(c[3]), body, carry)
    return out[1], out[5]
