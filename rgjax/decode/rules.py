"""What a token may be next: bans, lengths, repeats and slots, as pure functions of arrays with static shapes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import DecodeConfig
from rgjax.data import words
from rgjax.data.cleaning import clean_text
from rgjax.data.derived import WordCodes
from rgjax.data.tokenizer import ITEM_SLOT, MARKERS, Tokenizer
from rgjax.decode import required
from rgjax.decode.code_words import CodeWords
from rgjax.decode.required import NEVER, Progress, Spelling, Wanted
from rgjax.errors import UserError

AVOID = 1e4  # nats that the last token of a banned word loses, which may be the beginning of another: only what is required goes before it
_SLOT = re.compile(rf"{ITEM_SLOT}|<[ha]\d+>")


class RowRules(NamedTuple):
    """Per row: which slots have a referent, and how long each filled slot is, bool and int32 [R, M]; the words that it must hold, and the codes
    whose words are made likelier, as `CodeWords.asked` has them."""

    slot_allowed: jax.Array
    slot_units: jax.Array
    wanted: Wanted | None = None
    asked: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Rules:
    """Constant tables of one decoding configuration; `apply` is called inside the decoding loop."""

    end_ids: tuple[int, ...]
    banned_V: np.ndarray  # bool: never written
    units_V: np.ndarray  # int32: length of a token in the configured unit
    opening_V: np.ndarray  # int32: what a token adds besides as the first one: it begins a word even without a space
    slot_of_V: np.ndarray  # int32: index of the slot, or -1
    slot_names: tuple[str, ...]
    sequences: np.ndarray  # int32 [W, n]: banned words of several tokens, right-aligned, -1 before them
    avoided: np.ndarray  # int32 [W, n]: the same of words that may be the beginning of others
    apart_W: np.ndarray  # bool: of these, those that are words only where no letter stands before them
    letters_V: np.ndarray  # bool: tokens that end with a letter or digit of a script with spaces
    min_length: int
    max_length: int
    no_repeat: int
    once_M: np.ndarray  # bool: slots that may be written only once
    spelling: Spelling | None = None  # where words are required
    code_words: CodeWords | None = None

    @classmethod
    def of(
        cls, config: DecodeConfig, tokenizer: Tokenizer, rows: int = 0, ends: tuple[int, ...] = (), written: tuple[int, ...] = ()
    ) -> Rules:
        """For logits over `rows` ids (0: the vocabulary), of which those that are no token are never written.

        `ends` are the ids that end a reason (empty: the end token alone), `written` further special tokens that it may hold.
        Raises UserError when the least length exceeds the greatest, more reasons are asked for than are decoded, or required words can't be
        written.
        """
        _check(config)
        size, ends = tokenizer.vocab_size, ends or (tokenizer.eos_id,)
        banned = np.zeros(size, bool)
        controls = [t for t in (tokenizer.backend.id_to_token(i) or "" for i in range(size)) if re.fullmatch(r"<\|.*\|>", t)]
        for token in (*MARKERS, *controls, tokenizer.pad, tokenizer.bos):
            if (i := tokenizer.id_of(token)) is not None and i not in ends + written:
                banned[i] = True
        for i, token in tokenizer.backend.get_added_tokens_decoder().items():
            banned[i] |= token.special and not _SLOT.fullmatch(token.content) and i not in ends + written
        sequences = []
        for word in words.listed(config.banned_words):
            for form in _certain({word, " " + word, word.capitalize(), " " + word.capitalize()}):
                ids = tokenizer.encode(form)
                if len(ids) == 1:
                    banned[ids[0]] = True
                elif ids:
                    sequences.append(ids)
        forms = dict.fromkeys(form for word in words.listed(config.banned_words) for form in _uncertain(word))
        avoided = [(ids, words.edges(form)[0]) for form in forms if (ids := tokenizer.encode(form))]
        texts = tokenizer.token_bytes() if avoided else [b""] * size
        letters = np.array([words.edges(text.decode(errors="ignore")[-1:] or " ")[1] for text in texts])
        names = [tokenizer.backend.id_to_token(i) or "" for i in range(size)]
        names = [t for t in names if _SLOT.fullmatch(t)]
        slot_of = np.full(size, -1, np.int32)
        for index, name in enumerate(names):
            slot_of[tokenizer.id_of(name)] = index
        units, opening = _units(config.length_unit, tokenizer, ends)
        repeat = config.no_repeat_ngram if config.no_repeat_ngram <= config.max_new_tokens else 0  # a longer one can't occur
        limits = (config.min_length, config.max_length, repeat)
        once = np.array([config.cite_once and n.startswith("<h") for n in names] or [False])
        widen = lambda x, fill: np.pad(x, (0, max(rows - size, 0)), constant_values=fill)
        per_token = (widen(banned, True), widen(units, 1), widen(opening, 0), widen(slot_of, -1))
        codes = WordCodes.open(config.code_words, {}, "code_words") if config.code_words else None
        steering = codes and CodeWords.of(codes, config.code_pull, config.code_mentions, tokenizer, max(size, rows))
        tables = (_aligned(sequences), _aligned([ids for ids, _ in avoided]), np.array([apart for _, apart in avoided], bool), widen(letters, False))
        found = cls(ends, *per_token, tuple(names), *tables, *limits, once, code_words=steering)
        return found.spelled(config, tokenizer, [()]) if config.required_words else found

    def spelled(self, config: DecodeConfig, tokenizer: Tokenizer, further: Sequence[Sequence[str]]) -> Rules:
        """With tables to follow words by; raises UserError for the first row of `further` words that can't be written."""
        spelling, banned = self.spelling or Spelling.of(tokenizer, self), words.listed(config.banned_words)
        for row in dict.fromkeys(map(tuple, further)):
            spelling.check(required_words(config, row), config.max_new_tokens, banned, config.max_length)
        return dataclasses.replace(self, spelling=spelling)

    def rows(
        self, surfaces: list[dict[str, str]], unit: str, further: Sequence[Sequence[str]] = (), shape: tuple[int, int, int] = (),
        controls: Sequence[dict[str, str]] = (),
    ) -> RowRules:  # fmt: skip
        """The slots of each row's input; at least one column, so that shapes stay valid without slots. With a `shape` of `Spelling`, all
        the words of each row, in `further`, too; with words of codes, what each row asks for, in `controls`.

        Of several slots with one text only the first may be written: training texts point at no other.
        """
        width = max(1, len(self.slot_names))
        allowed, units = np.zeros((len(surfaces), width), bool), np.zeros((len(surfaces), width), np.int32)
        for r, filled in enumerate(surfaces):
            first = {text: name for name, text in reversed(filled.items())}
            for i, name in enumerate(self.slot_names):
                if (text := filled.get(name)) and first[text] == name:
                    allowed[r, i] = True
                    units[r, i] = {"tokens": 0, "words": max(length_of(text, "words") - 1, 0), "characters": len(text)}[unit]
        wanted = self.spelling.wanted(further, surfaces, shape) if shape else None
        asked = jnp.asarray(self.code_words.asked(controls or [{}] * len(surfaces))) if self.code_words else None
        return RowRules(jnp.asarray(allowed), jnp.asarray(units), wanted, asked)

    def ended(self, tokens: jax.Array) -> jax.Array:
        """Which of `tokens` end a reason: bool of their shape."""
        return jnp.isin(tokens, jnp.asarray(self.end_ids))

    def length(self, token_R: jax.Array, i: jax.Array, row: RowRules) -> jax.Array:
        """How much each row's new token of step `i` (of all, or [R]) adds to its length, int32 [R]."""
        slot = jnp.asarray(self.slot_of_V)[token_R]
        extra = jnp.take_along_axis(row.slot_units, jnp.maximum(slot, 0)[:, None], axis=1)[:, 0]
        own = jnp.asarray(self.units_V)[token_R] + jnp.where(i == 0, jnp.asarray(self.opening_V)[token_R], 0)
        return own + jnp.where(slot >= 0, extra, 0)

    def _written(self, tokens_RN: jax.Array) -> jax.Array:
        """Which slots each row has written so far, bool [R, M]."""
        slot_RN = jnp.where(tokens_RN >= 0, jnp.asarray(self.slot_of_V)[jnp.maximum(tokens_RN, 0)], -1)
        return jnp.any(slot_RN[:, :, None] == jnp.arange(len(self.slot_names)), axis=1)

    def begun(self, row: RowRules) -> Progress | None:
        """How far the required words of each row are before its first token; None where no row has any."""
        return None if row.wanted is None else required.begin(row.wanted)

    def grown(self, progress: Progress | None, row: RowRules, token_R: jax.Array, offer_R: jax.Array | None) -> Progress | None:
        """The same after a further token, of logits that came with the offer."""
        return None if progress is None else self.spelling.grown(progress, row.wanted, token_R, offer_R)

    def apply(self, logits_RV, tokens_RN, i, length_R, row: RowRules, progress: Progress | None) -> tuple[jax.Array, jax.Array | None]:
        """Logits with everything forbidden at step `i` (of all, or [R]) set to NEVER, and the offer of required words (`Spelling.steer`).

        `tokens_RN` are the tokens so far, -1 beyond.
        """
        i = jnp.broadcast_to(i, len(tokens_RN))
        logits = self.code_words.apply(logits_RV, tokens_RN, row.asked) if self.code_words else logits_RV
        if len(self.avoided):
            last, matches = _completed(tokens_RN, i, self.avoided)
            logits = logits.at[:, last].add(-AVOID * (matches & self._apart(tokens_RN, i)))
        logits = jnp.where(jnp.asarray(self.banned_V), NEVER, logits)
        if self.slot_names:
            slot = jnp.asarray(self.slot_of_V)
            free = row.slot_allowed & ~(self._written(tokens_RN) & self.once_M) if self.once_M.any() else row.slot_allowed
            allowed = jnp.where(slot >= 0, free[:, jnp.maximum(slot, 0)], True)
            logits = jnp.where(allowed, logits, NEVER)
        if len(self.sequences):
            last, matches = _completed(tokens_RN, i, self.sequences)
            logits = logits.at[:, last].min(jnp.where(matches, NEVER, jnp.inf))
        if self.no_repeat:
            logits = _ban_repeats(logits, tokens_RN, i, self.no_repeat)
        eos = self.ended(jnp.arange(logits.shape[-1]))
        if self.min_length:
            logits = jnp.where(eos & (length_R < self.min_length)[:, None], NEVER, logits)
        if self.max_length:
            every = jnp.asarray(self.units_V) + jnp.where(i[:, None] == 0, jnp.asarray(self.opening_V), 0)
            if self.slot_names:
                every = every + jnp.where(slot >= 0, row.slot_units[:, jnp.maximum(slot, 0)], 0)
            reserved = 0 if progress is None else required.units(progress, row.wanted)[:, None]
            logits = jnp.where(~eos & (length_R[:, None] + every + reserved > self.max_length), NEVER, logits)
        if progress is None:
            return logits, None
        return self.spelling.steer(logits, progress, row.wanted, i, tokens_RN.shape[1] - i)


    def _apart(self, tokens_RN, i_R) -> jax.Array:
        """Whether each of `avoided` would be a word at step `i` of each row, bool [R, W]."""
        sizes_W = np.sum(self.avoided >= 0, axis=1)
        before_RW = _recent(tokens_RN, i_R, self.avoided.shape[1])[:, self.avoided.shape[1] - sizes_W]
        return ~jnp.asarray(self.apart_W) | (before_RW < 0) | ~jnp.asarray(self.letters_V)[jnp.maximum(before_RW, 0)]


def _check(config: DecodeConfig) -> None:
    if config.max_length and config.min_length > config.max_length:
        raise UserError(f"--min_length={config.min_length} is above --max_length={config.max_length}; swap them.")
    if config.method == "greedy" and config.n_best > 1:
        raise UserError(f"--n_best={config.n_best} needs --method=sample, beam or mbr; greedy decoding writes one reason.")
    flag = {"beam": "beams", "mbr": "candidates", "best": "candidates"}.get(config.method)
    if flag and config.n_best > getattr(config, flag):
        raise UserError(f"--n_best={config.n_best} is above --{flag}={getattr(config, flag)}; raise --{flag} or lower --n_best.")


def required_words(config: DecodeConfig, further: Sequence[str] = ()) -> list[str]:
    """The words of --required_words and those of one input, each once."""
    return list(dict.fromkeys(filter(None, map(clean_text, [*words.listed(config.required_words), *further]))))


def _certain(forms: set[str]) -> list[str]:
    """Those whose tokens are the banned word whatever stands around them.

    After " art" may come "ist": a Latin word is known only once it is over, so it is avoided, and left to post-processing where it stands.
    """
    return [f for f in sorted(forms) if not any(words.edges(f))]


def _uncertain(word: str) -> list[str]:
    """Forms of a banned word that may be the beginning of another one, or none."""
    left, right = words.edges(word)
    cases = sorted({word, word.lower(), word.capitalize(), word.upper()})
    return [space + form for form in cases for space in (("", " ") if left else ("",))] if left or right else []


def _aligned(sequences: list[list[int]]) -> np.ndarray:
    """int32 [W, n], right-aligned, -1 before each."""
    width = max(map(len, sequences), default=1)
    table = np.full((len(sequences), width), -1, np.int32)
    for i, ids in enumerate(sequences):
        table[i, width - len(ids) :] = ids
    return table


def length_of(text: str, unit: str) -> int:
    """Length of a text in words (separated by white space) or characters."""
    return len(text.split()) if unit == "words" else len(text)


def _units(unit: str, tokenizer: Tokenizer, ends: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all tokens, and what each adds as the first token; int32 [V]."""
    texts, opening = tokenizer.token_bytes(), np.zeros(tokenizer.vocab_size, np.int32)
    if unit == "tokens":
        units = np.ones(tokenizer.vocab_size, np.int32)
    elif unit == "characters":  # UTF-8: every byte that does not continue a character starts one
        units = np.array([sum(b & 0xC0 != 0x80 for b in t) for t in texts], np.int32)
    else:  # a word begins where white space does, and at the start
        units = np.array([len(re.findall(rb"\s+", t)) for t in texts], np.int32)
        opening = np.array([not t[:1].isspace() for t in texts], np.int32)
    units[list(ends)] = opening[list(ends)] = 0
    return units, opening


def _recent(tokens_RN, i_R, n: int) -> jax.Array:
    """The n tokens before step `i` of each row, int32 [R, n]; -2 before the first."""
    padded = jnp.pad(tokens_RN, ((0, 0), (n, 0)), constant_values=-2)
    return jnp.take_along_axis(padded, i_R[:, None] + jnp.arange(n), axis=1)


def _completed(tokens_RN, i_R, sequences: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """(the last token of each sequence [W], the rows that end with all its other tokens, bool [R, W])."""
    recent = _recent(tokens_RN, i_R, sequences.shape[1] - 1)
    heads, last = jnp.asarray(sequences[:, :-1]), jnp.asarray(sequences[:, -1])
    return last, jnp.all((heads[None] == recent[:, None]) | (heads[None] == -1), axis=-1)


def _ban_repeats(logits, tokens_RN, i_R, n: int) -> jax.Array:
    """Bans tokens that would complete an n-gram seen before."""
    rows, total = tokens_RN.shape
    if n == 1:
        seen = jnp.where(jnp.arange(total)[None] < i_R[:, None], tokens_RN, -1)
        return logits.at[jnp.arange(rows)[:, None], seen].min(jnp.where(seen >= 0, NEVER, jnp.inf))
    recent = _recent(tokens_RN, i_R, n - 1)
    same = jnp.ones((rows, total - n + 1), bool)
    for k in range(n - 1):
        same &= tokens_RN[:, k : total - n + 1 + k] == recent[:, k : k + 1]
    nexts = tokens_RN[:, n - 1 :]
    same &= (jnp.arange(total - n + 1)[None] + n - 1 < i_R[:, None]) & (nexts >= 0)
    # A minimum never lifts another ban, whichever write comes last.
    return logits.at[jnp.arange(rows)[:, None], jnp.maximum(nexts, 0)].min(jnp.where(same, NEVER, jnp.inf))
