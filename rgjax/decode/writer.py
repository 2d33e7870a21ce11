"""Prompts in, continuations out: batches of like length, static shapes, one compilation per shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import DecodeConfig
from rgjax.data.template import Rendered
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode import beam, prompt, sampling
from rgjax.decode.rules import NEVER, Rules
from rgjax.decode.unrolled import Unrolled
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding

BUCKET = 64  # prompt lengths are rounded up to a multiple of this
POSSIBLE = NEVER / 1e15  # scores below are of sequences with a forbidden token, or of none, also after the length penalty


class Hypothesis(NamedTuple):
    """Token ids up to (without) the end token, their score, and whether the end token came."""

    ids: list[int]
    score: float
    ended: bool


class Writer:
    """Decodes with fixed parameters and one configuration; `ends` and `written` as `Rules.of` takes them."""

    def __init__(
        self, factory: ModelFactory, params: dict, tokenizer: Tokenizer, config: DecodeConfig,
        ends: tuple[int, ...] = (), written: tuple[int, ...] = (),
    ):  # fmt: skip
        self.factory, self.params, self.tokenizer, self.config = factory, params, tokenizer, config
        self.rules = Rules.of(config, tokenizer, factory.vocab_size, ends, written)
        self.copies = {"greedy": 1, "sample": config.n_best, "beam": config.beams, "mbr": config.candidates}[config.method]
        self.rows = max(1, config.decode_batch // self.copies)
        self._run = jax.jit(self._decode, out_shardings=sharding.readable(params))

    def _decode(self, params, tokens_RS, lengths_R, rules_R, keys_R, vectors_R1Z=None):
        model = self.factory.model(params, vectors_R1Z)
        filled = prompt.prefill(model, tokens_RS, lengths_R)
        rows, model = prompt.repeat(rules_R, self.copies), Unrolled(model)
        if self.config.method == "beam":
            return beam.decode(model, filled, rows, self.rules, self.config, self.tokenizer.pad_id)
        keys = jax.vmap(lambda k: jax.vmap(lambda c: jax.random.fold_in(k, c))(jnp.arange(self.copies)))(keys_R).reshape(-1)
        out, total = sampling.decode(model, filled, rows, keys, self.rules, self.config, self.tokenizer.pad_id)
        return out.reshape(-1, self.copies, out.shape[-1]), total.reshape(-1, self.copies)

    def write(self, rendered: list[Rendered], first_row: int = 0, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """Hypotheses per prompt, best first (in the order drawn, when sampling).

        A prompt's randomness depends on its number alone: first_row + r, or rows[r] where they do not follow each other.

        There are fewer than asked for where the rules leave fewer sequences, but always one.
        """
        results: list[list[Hypothesis]] = [[] for _ in rendered]
        numbers = range(first_row, first_row + len(rendered)) if rows is None else rows
        order = sorted(range(len(rendered)), key=lambda r: len(rendered[r].prompt_ids))
        for at in range(0, len(order), self.rows):
            members = order[at : at + self.rows]
            filler = members + [members[-1]] * (self.rows - len(members))
            tokens, scores = self._batch([rendered[r] for r in filler], [numbers[r] for r in filler])
            for r, row_tokens, row_scores in zip(members, tokens, scores, strict=False):
                found = [self._hypothesis(t, s) for t, s in zip(row_tokens, row_scores, strict=True)]
                results[r] = [h for h in found if h.score > POSSIBLE] or found[:1]
        return results

    def _batch(self, rendered: list[Rendered], row_ids: list[int]):
        longest = max(len(r.prompt_ids) for r in rendered)
        tokens, lengths = prompt.pad_left([r.prompt_ids for r in rendered], -(-longest // BUCKET) * BUCKET, self.tokenizer.pad_id)
        rows = self.rules.rows([r.surfaces for r in rendered], self.config.length_unit)
        keys = jax.vmap(lambda r: jax.random.fold_in(jax.random.key(self.config.decode_seed), r))(jnp.asarray(row_ids, jnp.uint32))
        vectors = None if rendered[0].vector is None else jnp.asarray(np.stack([r.vector for r in rendered])[:, None])
        return jax.device_get(self._run(self.params, jnp.asarray(tokens), jnp.asarray(lengths), rows, keys, vectors))

    def _hypothesis(self, tokens: np.ndarray, score: float) -> Hypothesis:
        ids = [int(t) for t in tokens if t >= 0]
        end = next((n for n, t in enumerate(ids) if t in self.rules.end_ids), None)
        return Hypothesis(ids[:end], float(score), end is not None)
