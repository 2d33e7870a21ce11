"""Greedy decoding and sampling in one compiled loop that ends when every row has ended."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rgjax.config import DecodeConfig
from rgjax.decode import guidance, prompt
from rgjax.decode.drawing import drawn, drawn_of_likeliest
from rgjax.decode.required import Progress
from rgjax.decode.rules import NEVER, RowRules, Rules

PART = 128  # tokens of a row looked at together by `likeliest`


def choose(logits_RV: jax.Array, keys_R: jax.Array, i: jax.Array, config: DecodeConfig) -> jax.Array:
    """Next tokens int32 [R] of step `i` (of all rows, or [R]): the likeliest, or drawn after temperature, top-k and top-p.

    A row's draw depends on its own key and the step only, never on the rest of the batch. Drawing inverts the cumulative
    distribution, one uniform number per row (with top-p one a round of it). Tokens as likely as the last that top-k leaves stay too.
    """
    if config.method == "greedy":
        return likeliest(logits_RV)
    keys_R = jax.vmap(jax.random.fold_in)(keys_R, jnp.broadcast_to(i, len(keys_R)))
    logits = jnp.where(logits_RV <= NEVER, -jnp.inf, logits_RV / config.temperature)
    if 0 < config.top_k < logits.shape[-1]:
        logits = jnp.where(logits >= jax.lax.top_k(logits, config.top_k)[0][:, -1:], logits, -jnp.inf)
    p_RV = jax.nn.softmax(logits, axis=-1)
    return drawn_of_likeliest(p_RV, config.top_p, keys_R) if config.top_p < 1.0 else drawn(p_RV, jax.vmap(jax.random.uniform)(keys_R))


def likeliest(logits_RV: jax.Array) -> jax.Array:
    """The first index of each row's maximum, int32 [R]: first the part of the row that holds it, then its place there.

    XLA's argmax of a whole row takes as long on a CPU as the product with the output matrix.
    """
    rows, size = logits_RV.shape
    parts = jnp.pad(logits_RV, ((0, 0), (0, -size % PART)), constant_values=-jnp.inf).reshape(rows, -1, PART)
    which = jnp.argmax(jnp.max(parts, axis=-1), axis=-1)
    place = jnp.argmax(jnp.take_along_axis(parts, which[:, None, None], axis=1)[:, 0], axis=-1)
    return (which * PART + place).astype(jnp.int32)


class Rows(NamedTuple):
    """Continuations under way, R of them; consecutive ones continue the same input."""

    tokens: jax.Array  # int32 [R, N]: written so far, -1 beyond
    latest: jax.Array  # int32 [R]: the token to feed next
    count: jax.Array  # int32 [R]: tokens written
    done: jax.Array  # bool [R]
    length: jax.Array  # int32 [R], in the configured unit
    total: jax.Array  # float32 [R]: summed log-probabilities
    rules: RowRules
    keys: jax.Array  # [R]: random keys
    progress: Progress | None  # of required words


class Sampler(NamedTuple):
    """Greedy decoding or sampling with fixed rules; `start_id` is what an encoder-decoder begins with."""

    rules: Rules
    config: DecodeConfig
    start_id: int

    def begin(self, filled: prompt.Prefilled, rules: RowRules, keys_R: jax.Array) -> Rows:
        """Rows after their prompts: with a first token, where the prompt's logits give one."""
        count, n = len(keys_R), self.config.max_new_tokens
        zeros, tokens = jnp.zeros(count, jnp.int32), jnp.full((count, n), -1, jnp.int32)
        still, total = (jnp.zeros(count, bool), zeros), jnp.zeros(count, jnp.float32)
        rows = Rows(tokens, zeros + self.start_id, zeros, *still, total, rules, keys_R, self.rules.begun(rules))
        return rows if filled.logits is None else self.grown(rows, prompt.repeat(filled.logits, count // len(filled.logits)))

    def grown(self, rows: Rows, logits_RV: jax.Array) -> Rows:
        """With a further token each, but for those that are done."""
        i, live = rows.count, ~rows.done
        logits, offer = self.rules.apply(logits_RV, rows.tokens, i, rows.length, rows.rules, rows.progress)
        new = choose(logits, rows.keys, i, self.config)
        gain = jnp.take_along_axis(logits, new[:, None], axis=1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        here = (jnp.arange(rows.tokens.shape[1]) == i[:, None]) & live[:, None]
        count = i + live
        return rows._replace(
            tokens=jnp.where(here, new[:, None], rows.tokens), latest=new, count=count,
            done=rows.done | self.rules.ended(new) | (count == rows.tokens.shape[1]),
            length=rows.length + jnp.where(live, self.rules.length(new, i, rows.rules), 0), total=rows.total + jnp.where(live, gain, 0.0),
            progress=self.rules.grown(rows.progress, rows.rules, new, offer),
        )  # fmt: skip

    def step(self, model, filled: prompt.Prefilled, rows: Rows, caches: list, at: jax.Array) -> tuple[Rows, list]:
        """One more token of every row; what is fed is written at the place `at` of the caches."""
        fed = rows.count if filled.logits is None else rows.count - 1
        logits, caches = guidance.advance(model, filled, caches, rows.latest, fed, self.config.guidance, at=at)
        return self.grown(rows, logits), caches


def decode(model, filled: prompt.Prefilled, rules: RowRules, keys_R: jax.Array, sampler: Sampler):
    """Continues every row; returns tokens int32 [R, N] (-1 beyond the end token) and summed log-probabilities float32 [R].

    R is a multiple of the inputs, consecutive rows continue the same input; `filled` is of `guidance.prefill`.
    """
    rows, fed = sampler.begin(filled, rules, keys_R), len(keys_R) * guidance.sides(sampler.config.guidance)
    caches = prompt.empty_caches(model, fed, sampler.config.max_new_tokens)

    def body(carry):
        at, rows, caches = carry
        return at + 1, *sampler.step(model, filled, rows, caches, at)

    _, rows, _ = jax.lax.while_loop(lambda c: ~jnp.all(c[1].done), body, (jnp.int32(0), rows, caches))
    return rows.tokens, rows.total
