"""Prompts in, continuations out: batches of like length, static shapes, one compilation per shape."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import DecodeConfig
from rgjax.data.template import Rendered
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode import beam, guidance, pool, prompt, sampling
from rgjax.decode.rules import NEVER, Rules, required_words
from rgjax.decode.sampling import Sampler
from rgjax.decode.unrolled import Ready, Unrolled, ready
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding

BUCKET = 64  # prompt lengths are rounded up to a multiple of this
PARTS = 4  # a pool takes further inputs in when the first of so many parts is done
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
        self.copies = {"greedy": 1, "sample": config.n_best, "beam": config.beams}.get(config.method, config.candidates)
        self.sides = guidance.sides(config.guidance)
        self.rows = max(1, config.decode_batch // (self.copies * self.sides))
        self.shape: tuple[int, ...] = ()  # of required words, where any input has some
        self._made_of, self._made = None, None
        self._ready = jax.jit(lambda params: ready(factory.model(params), self.rows * self.copies * self.sides))
        self._run = jax.jit(self._decode, out_shardings=sharding.readable(params))
        self._put, self._go = jax.jit(self._taken_in, static_argnums=0), jax.jit(self._gone_on, donate_argnums=1)

    def _decode(self, params, made: Ready, tokens_PS, lengths_P, rules_R, numbers_R, vectors_P1Z=None):
        model, rows = Unrolled(self.factory.model(params, vectors_P1Z), made), prompt.repeat(rules_R, self.copies)
        filled = guidance.prefill(model, tokens_PS, lengths_P, self.config.guidance)
        if self.config.method == "beam":
            return beam.decode(model, filled, rows, self.rules, self.config, self.tokenizer.pad_id)
        out, total = sampling.decode(model, filled, rows, self._keys(numbers_R), self._sampler())
        return out.reshape(-1, self.copies, out.shape[-1]), total.reshape(-1, self.copies)

    def _prepared(self) -> Ready:
        """As `unrolled.ready`, made once for parameters."""
        if self._made_of is not self.params:
            self._made = None  # freed before the new one is made
            self._made_of, self._made = self.params, self._ready(self.params)
        return self._made

    def release(self) -> None:
        """Lets go of the parameters and what was made ready of them; `params` are to be set before it writes again."""
        self.params = self._made_of = self._made = None

    def _sampler(self) -> Sampler:
        return Sampler(self.rules, self.config, self.tokenizer.pad_id)

    def _keys(self, numbers_R: jax.Array) -> jax.Array:
        """Random keys [R * copies] of the prompts of these numbers."""
        one = lambda number: jax.random.fold_in(jax.random.key(self.config.decode_seed), number)
        return jax.vmap(lambda r: jax.vmap(lambda c: jax.random.fold_in(one(r), c))(jnp.arange(self.copies)))(numbers_R).reshape(-1)

    def _taken_in(self, fresh: bool, params, held, made: Ready, tokens_MS, lengths_M, rules_M, numbers_M, where_M, vectors_M1Z=None):
        model, keys = Unrolled(self.factory.model(params, vectors_M1Z), made), self._keys(numbers_M)
        rules = prompt.repeat(rules_M, self.copies)
        held = pool.empty(model, self._sampler(), self.rows, self.copies, rules, keys) if fresh else held
        return pool.put(model, self._sampler(), held, tokens_MS, lengths_M, rules, keys, where_M)

    def _gone_on(self, params, held, made: Ready, wanted):
        return pool.run(Unrolled(self.factory.model(params), made), self._sampler(), held, wanted)

    def write(self, rendered: list[Rendered], first_row: int = 0, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """Hypotheses per prompt, best first (in the order drawn, when sampling).

        A prompt's randomness depends on its number alone: first_row + r, or rows[r] where they do not follow each other.

        There are fewer than asked for where the rules leave fewer sequences, but always one. Raises UserError for required words that can't be
        written.
        """
        wanted = [self.required(r.required) for r in rendered]
        self.shape = self.rules.spelling.shape(wanted) if any(wanted) else ()
        numbers = range(first_row, first_row + len(rendered)) if rows is None else rows
        order, results = sorted(range(len(rendered)), key=lambda r: len(rendered[r].prompt_ids)), {}
        for r, row_tokens, row_scores in (self._pooled if self._refills(len(rendered)) else self._batches)(rendered, numbers, order):
            found = [self._hypothesis(t, s) for t, s in zip(row_tokens, row_scores, strict=True)]
            results[r] = [h for h in found if h.score > POSSIBLE] or found[:1]
        return [results[r] for r in range(len(rendered))]

    def required(self, further: Sequence[str] = ()) -> list[str]:
        """The words that a reason must hold, with those of its input; raises UserError where they can't all be written."""
        if further:
            self.rules = self.rules.spelled(self.config, self.tokenizer, [further])
        return required_words(self.config, further)

    def _refills(self, inputs: int) -> bool:
        """Whether inputs take the places of others: there are more than places, each has one prompt, and only its tokens tell a row's positions."""
        c = self.factory.config
        alone = jax.process_count() == 1 and self.rows >= PARTS and self.sides == 1
        return alone and inputs > self.rows and self.config.method != "beam" and c.architecture == "causal" and c.positions != "relative"

    def _batches(self, rendered: list[Rendered], numbers: Sequence[int], order: list[int]) -> Iterator[tuple]:
        """(input, its tokens, their scores), batch by batch."""
        for at in range(0, len(order), self.rows):
            members = order[at : at + self.rows]
            filler = members + [members[-1]] * (self.rows - len(members))
            yield from zip(members, *jax.device_get(self._run(self.params, self._prepared(), *self._arrays(rendered, numbers, filler))), strict=False)

    def _pooled(self, rendered: list[Rendered], numbers: Sequence[int], order: list[int]) -> Iterator[tuple]:
        """As `_batches`, of a pool: as soon as a part of its inputs are done, others take their places."""
        part, waiting, places, held = self.rows // PARTS, collections.deque(order), dict.fromkeys(range(self.rows)), None
        while waiting or any(r is not None for r in places.values()):
            while waiting and len(free := [place for place, r in places.items() if r is None]) >= part:
                members = [waiting.popleft() for _ in range(min(part, len(waiting)))]
                filler, where = members + [members[-1]] * (part - len(members)), (free[: len(members)] + [free[len(members) - 1]] * part)[:part]
                tokens, lengths, rules, row_numbers, vectors = self._arrays(rendered, numbers, filler)
                new = (self._prepared(), tokens, lengths, rules, row_numbers, jnp.asarray(where), vectors)
                changed = self._put(held is None, self.params, held and held._replace(caches=[]), *new)
                held = changed if held is None else changed._replace(caches=held.caches)  # which are large, and stay as they are
                places |= dict(zip(where, members, strict=False))
            held, done = self._go(self.params, held, self._prepared(), part if waiting else self.rows)
            tokens, scores, done = jax.device_get((held.rows.tokens, held.rows.total, done))
            for place in [place for place, r in places.items() if r is not None and done[place]]:
                rows = slice(place * self.copies, (place + 1) * self.copies)
                yield places[place], tokens[rows], scores[rows]
                places[place] = None

    def _arrays(self, rendered: list[Rendered], numbers: Sequence[int], members: list[int]) -> tuple:
        """(tokens, lengths, rules, numbers, vectors or None) of some inputs; with guidance each input has two rows of tokens, lengths and vectors."""
        chosen = [rendered[r] for r in members]
        prompts = [ids for r in chosen for ids in (r.prompt_ids, r.plain_ids)[: self.sides]]
        tokens, lengths = prompt.pad_left(prompts, -(-max(map(len, prompts)) // BUCKET) * BUCKET, self.tokenizer.pad_id)
        required = [required_words(self.config, r.required) for r in chosen]
        rows = self.rules.rows([r.surfaces for r in chosen], self.config.length_unit, required, self.shape, [r.control for r in chosen])
        vectors = None if chosen[0].vector is None else jnp.asarray(np.repeat([r.vector for r in chosen], self.sides, axis=0)[:, None])
        return jnp.asarray(tokens), jnp.asarray(lengths), rows, jnp.asarray([numbers[r] for r in members], jnp.uint32), vectors

    def _hypothesis(self, tokens: np.ndarray, score: float) -> Hypothesis:
        ids = [int(t) for t in tokens if t >= 0]
        end = next((n for n, t in enumerate(ids) if t in self.rules.end_ids), None)
        return Hypothesis(ids[:end], float(score), end is not None)
