"""Beam search: the sequences with the highest log-probability divided by length ** length_penalty (Wu et al. 2016 family)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rgjax.config import DecodeConfig
from rgjax.decode import guidance, prompt
from rgjax.decode.required import Progress
from rgjax.decode.rules import NEVER, RowRules, Rules


class _Carry(NamedTuple):
    i: jax.Array
    tokens: jax.Array  # [B, K, N] live beams
    scores: jax.Array  # [B, K] summed log-probabilities
    lengths: jax.Array  # [B, K] in the configured unit
    done_tokens: jax.Array  # [B, K, N] finished, best first
    done_scores: jax.Array  # [B, K] divided by length ** penalty
    open: jax.Array  # bool [B]: a live beam may still beat a finished one; once closed, whatever the batch does, it stays so
    caches: list
    lines: jax.Array  # int32 [B * K, N]: which of an input's K beams wrote the keys that a live beam reads at each position
    progress: Progress | None  # of required words, [B * K, ...]


def decode(model, filled: prompt.Prefilled, rows: RowRules, rules: Rules, config: DecodeConfig, start_id: int):
    """Searches with config.beams per input. `rows` hold each input `beams` times over, one after another;
    an input's beams share the prompt's keys and values, and one cache: what a beam wrote stays where it is, and its successors
    remember where (`lines`), so no cache is ever reordered.

    Returns tokens int32 [B, K, N] (-1 beyond the end token) and scores float32 [B, K], best first.
    """
    k, n, sides = config.beams, config.max_new_tokens, guidance.sides(config.guidance)
    b = filled.start.shape[0] // sides
    search = _Search(model, filled, rows, rules, config, start_id, b)
    first_live = jnp.tile(jnp.where(jnp.arange(k) == 0, 0.0, NEVER), (b, 1))  # all beams are alike before the first token
    tokens = jnp.full((b, k, n), -1, jnp.int32)
    lengths, nothing = jnp.zeros((b, k), jnp.int32), jnp.full((b, k), NEVER)
    caches, lines = prompt.empty_caches(model, sides * b * k, n, together=k), jnp.zeros((b * k, n), jnp.int32)
    start = _Carry(jnp.int32(0), tokens, first_live, lengths, tokens, nothing, jnp.ones(b, bool), caches, lines, rules.begun(rows))
    if filled.logits is not None:
        start = search.expand(start, prompt.repeat(filled.logits, k))
    out = jax.lax.while_loop(lambda c: (c.i < n) & jnp.any(c.open), search.step, start)
    # What ran out of tokens competes at its full length.
    live = jnp.where(out.open[:, None], out.scores / jnp.maximum(out.i, 1).astype(jnp.float32) ** config.length_penalty, NEVER)
    scores, best = jax.lax.top_k(jnp.concatenate([out.done_scores, live], axis=1), k)
    return jnp.take_along_axis(jnp.concatenate([out.done_tokens, out.tokens], axis=1), best[..., None], axis=1), scores


class _Search(NamedTuple):
    """What `decode` was given, for `inputs` prompts, and how it goes on by a token."""

    model: object
    filled: prompt.Prefilled
    rows: RowRules
    rules: Rules
    config: DecodeConfig
    start_id: int
    inputs: int

    def step(self, c: _Carry) -> _Carry:
        """Feeds each live beam's last token, and takes the next."""
        k = self.config.beams
        last = jax.lax.dynamic_index_in_dim(c.tokens, jnp.maximum(c.i - 1, 0), axis=2, keepdims=False).reshape(-1)
        token = jnp.where(c.i == 0, self.start_id, last)
        at = c.i if self.filled.logits is None else c.i - 1
        lines = jax.lax.dynamic_update_index_in_dim(c.lines, jnp.tile(jnp.arange(k), self.inputs), at, axis=1)
        logits, caches = guidance.advance(self.model, self.filled, c.caches, token, at, self.config.guidance, lines)
        return self.expand(c._replace(caches=caches, lines=lines), logits)

    def expand(self, c: _Carry, logits: jax.Array) -> _Carry:
        """The best continuations by `logits` [B * K, V]: so many that K go on, even if every beam's likeliest tokens are ends."""
        b, k = self.inputs, self.config.beams
        logits, offer = self.rules.apply(logits, c.tokens.reshape(b * k, -1), c.i, c.lengths.reshape(-1), self.rows, c.progress)
        gains = jax.nn.log_softmax(logits, axis=-1).reshape(b, k, -1)
        v, tries = gains.shape[-1], (1 + len(self.rules.end_ids)) * k
        scores, flat = jax.lax.top_k((c.scores[..., None] + gains).reshape(b, k * v), tries)
        beam, token = flat // v, (flat % v).astype(jnp.int32)
        grown = jnp.take_along_axis(c.tokens, beam[..., None], axis=1)
        grown = jax.lax.dynamic_update_index_in_dim(grown, token, c.i, axis=2)
        return self._select(c, grown, scores, beam, token, offer)

    def _select(self, c: _Carry, grown: jax.Array, scores: jax.Array, beam: jax.Array, token: jax.Array, offer) -> _Carry:
        b, k, penalty = self.inputs, self.config.beams, self.config.length_penalty
        ended, length = self.rules.ended(token), c.i + 1.0
        # As in transformers, an end counts only among the best K continuations.
        counted = ended & (jnp.arange(token.shape[1]) < k) & c.open[:, None]
        pool_scores = jnp.concatenate([c.done_scores, jnp.where(counted, scores / length**penalty, NEVER)], axis=1)
        pool = jnp.concatenate([c.done_tokens, grown], axis=1)
        done_scores, best = jax.lax.top_k(pool_scores, k)
        done_tokens = jnp.take_along_axis(pool, best[..., None], axis=1)
        live_scores, live = jax.lax.top_k(jnp.where(ended, NEVER, scores), k)
        tokens = jnp.take_along_axis(grown, live[..., None], axis=1)
        parent = jnp.take_along_axis(beam, live, axis=1)
        index = (jnp.arange(b)[:, None] * k + parent).reshape(-1)
        new = jnp.take_along_axis(token, live, axis=1).reshape(-1)
        lengths = jnp.take_along_axis(c.lengths, parent, axis=1) + self.rules.length(new, c.i, self.rows).reshape(b, k)
        # The best a live beam can still reach, as if it kept its probability (transformers' early_stopping=False).
        still_open = c.open & (live_scores[:, 0] / length**penalty > done_scores[:, -1])
        before, offer = jax.tree.map(lambda x: x[index], (c.progress, offer))
        progress = self.rules.grown(before, self.rows, new, offer)
        return _Carry(c.i + 1, tokens, live_scores, lengths, done_tokens, done_scores, still_open, c.caches, c.lines[index], progress)
