"""Words that a reason must hold. What is written is followed byte by byte, as the user will read it; a word that is still missing is begun
where the model likes it well, in any case where the sentence would otherwise end, and while there is room; then its tokens follow.

Where a sentence would end, the missing words are put as the last of a list, and then it ends: "..., waterproof." or "……，防水。".

Beginning it more readily where it is likely is the keyword bias of K2T (Pascual et al. 2021); not ending before all are there is the hard
constraint of lexically constrained decoding (Hokamp & Liu 2017), without its search over states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data import words
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError

NEVER = -1e30  # finite, so that a row in which everything is banned still has an argmax
PULL = 2.0  # nats by which the first token of a missing word gains, where it spells at least half of the word
ENDING = 12  # tokens left, if that is little of the room, to finish the sentence after the last word that had to be put in
_LONGEST = 32  # bytes of a token that are followed, its last ones
_START, _WITHIN, _AFTER, _LISTED = range(4)  # how a word is written: at the very start, in a sentence, after the end of one, at its end
_FORMS = 4
_STOPS, _COMMAS = ".!?。！？…", ",，、;；:：(（"


class Wanted(NamedTuple):
    """Per row: its W words, in order; a row with fewer has empty ones."""

    bytes_RWL: jax.Array  # int32: UTF-8, ASCII in lower case, -1 beyond
    size_RW: jax.Array  # int32: bytes, 0 where there is no word
    edges_RW2: jax.Array  # bool: whether a letter before or after it would make it another word
    forms_RWFn: jax.Array  # int32: its tokens in each form, -1 beyond
    begun_RWF: jax.Array  # bool: the first token spells at least half of it
    tokens_RW: jax.Array  # int32: of the longest form
    units_RW: jax.Array  # int32: the most it adds to the length of a text
    held_RMW: jax.Array  # bool: slots whose text holds it


class Progress(NamedTuple):
    """Per row: what has been written so far."""

    seen_RW: jax.Array  # bool: the word stands there
    open_RW: jax.Array  # bool: it does unless a letter follows
    prefix_RWL: jax.Array  # bool: the text ends with so many of its bytes, and one more
    last_R: jax.Array  # int32: the last whole character, 0 before the first
    inside_R: jax.Array  # int32: bytes that the character under way still lacks
    partial_R: jax.Array  # int32: its bits so far
    form_R: jax.Array  # int32: which form (W * F) is being written, -1 none
    place_R: jax.Array  # int32: its next token; above 0 without a form: one has just been written
    closing_R: jax.Array  # bool: that one was put where the sentence was to end, which it now does


def begin(wanted: Wanted) -> Progress:
    """Nothing is written yet."""
    no, zeros = jnp.zeros(wanted.size_RW.shape, bool), jnp.zeros(len(wanted.size_RW), jnp.int32)
    return Progress(no, no, jnp.zeros(wanted.bytes_RWL.shape, bool), zeros, zeros, zeros, zeros - 1, zeros, zeros > 0)


def missing(progress: Progress, wanted: Wanted) -> jax.Array:
    """Words that would not stand in the text if it ended here, bool [R, W]."""
    return (wanted.size_RW > 0) & ~progress.seen_RW & ~progress.open_RW


def units(progress: Progress, wanted: Wanted) -> jax.Array:
    """Most length that the missing words still add, int32 [R]."""
    return jnp.sum(jnp.where(missing(progress, wanted), wanted.units_RW, 0), axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Spelling:
    """What the tokens of a vocabulary write."""

    tokenizer: Tokenizer
    units_V: np.ndarray  # as in `Rules`
    opening_V: np.ndarray
    plain_V: np.ndarray  # bool: may stand in a word: no slot, mark or end
    slot_of_V: np.ndarray
    slot_names: tuple[str, ...]
    ends_V: np.ndarray  # bool
    stops_V: np.ndarray  # bool: begins with what ends a sentence
    bytes_VT: np.ndarray  # int32: ASCII in lower case, -1 beyond
    apart_V: np.ndarray  # bool: slots, and tokens with bytes before those above: nothing before them is continued
    joins_V: np.ndarray  # bool: does not begin with a whole character that parts a word before it from what follows

    @classmethod
    def of(cls, tokenizer: Tokenizer, rules) -> Spelling:
        """For the vocabulary and the tables of `rules` (`rules.Rules`); raises UserError unless the vocabulary is of bytes."""
        if type(tokenizer.backend.decoder).__name__ != "ByteLevel":
            raise UserError("Required words need a byte-level vocabulary, which this model has not; leave --required_words and 'require' out.")
        texts = [t.lower() for t in tokenizer.token_bytes()] + [b""] * (len(rules.units_V) - tokenizer.vocab_size)
        table = np.full((len(texts), min(max(map(len, texts)), _LONGEST)), -1, np.int32)
        for i, text in enumerate(texts):
            table[i, : len(text[-_LONGEST:])] = list(text[-_LONGEST:])
        slot, ends = rules.slot_of_V >= 0, np.isin(np.arange(len(texts)), rules.end_ids)
        apart = slot | np.array([len(t) > _LONGEST for t in texts])
        plain = ~(rules.banned_V | slot | ends)
        first = [_first(t.lstrip(b" ")) for t in texts]
        stops = np.array([c in _STOPS and c != "" for c in first])
        parts = np.array([bool(c := _first(t)) and not words.edges(c)[0] for t in texts])
        return cls(tokenizer, rules.units_V, rules.opening_V, plain, rules.slot_of_V, rules.slot_names, ends, stops, table, apart, ~ends & ~parts)

    def check(self, wanted: Sequence[str], room: int, banned: Sequence[str] = (), longest: int = 0) -> None:
        """Raises UserError where the words can't all be written in `room` tokens and `longest` units (0: any), or hold a banned one."""
        for word in wanted:
            if held := [b for b in banned if words.pattern(b).search(word)]:
                raise UserError(f"The required word '{word}' holds '{held[0]}' of --banned_words; leave one of them out.")
            if not all(self._writable(form) for form in _forms(word)):
                raise UserError(f"The required word '{word}' can't be written with this vocabulary; leave it out.")
        sizes = [self._size(word) for word in wanted]
        tokens, length = (sum(size[k] for size in sizes) for k in (0, 1))
        if tokens + 1 > room:
            raise UserError(f"The required words take {tokens} tokens and the end one, above --max_new_tokens={room}; raise it or require fewer.")
        if longest and length > longest:
            raise UserError(f"The required words have a length of {length}, above --max_length={longest}; raise it or require fewer.")

    def _writable(self, form: str) -> bool:
        ids = self.tokenizer.encode(form)
        return bool(ids) and all(self.plain_V[ids]) and self.tokenizer.decode(ids) == form

    def _size(self, word: str) -> tuple[int, int]:
        """(most tokens, most units) of the word's forms."""
        forms = [self.tokenizer.encode(form) for form in _forms(word)]
        return max(map(len, forms)), max(int(self.units_V[ids].sum() + self.opening_V[ids[0]]) for ids in forms)

    def wanted(self, rows: Sequence[Sequence[str]], surfaces: Sequence[dict[str, str]], shape: tuple[int, int, int]) -> Wanted:
        """The words of each row beside the texts of its slots; `shape` is (W, L, n) of `shape`."""
        (w, longest, n), r = shape, len(rows)
        bytes_RWL, forms = np.full((r, w, longest), -1, np.int32), np.full((r, w, _FORMS, n), -1, np.int32)
        size, tokens, length = (np.zeros((r, w), np.int32) for _ in range(3))
        edges, begun, held = (np.zeros((r, w, k), bool) for k in (2, _FORMS, max(1, len(self.slot_names))))
        for i, row in enumerate(rows):
            for j, word in enumerate(row):
                text = word.encode().lower()
                bytes_RWL[i, j, : len(text)], size[i, j], edges[i, j] = list(text), len(text), words.edges(word)
                tokens[i, j], length[i, j] = self._size(word)
                for k, form in enumerate(_forms(word)):
                    ids = self.tokenizer.encode(form)
                    forms[i, j, k, : len(ids)], begun[i, j, k] = ids, 2 * np.sum(self.bytes_VT[ids[0]] > 32) >= len(text)
                found = [name in surfaces[i] and bool(words.pattern(word).search(surfaces[i][name])) for name in self.slot_names]
                held[i, j, : len(found)] = found
        held = held.transpose(0, 2, 1)
        return Wanted(*map(jnp.asarray, (bytes_RWL, size, edges, forms, begun, tokens, length, held)))

    def shape(self, rows: Sequence[Sequence[str]]) -> tuple[int, int, int]:
        """(words, bytes, tokens) that hold those of every row; powers of 2, so that few programs are compiled."""
        every = list(dict.fromkeys(word for row in rows for word in row))
        most = max(map(len, rows)), max(len(w.encode()) for w in every), max(self._size(w)[0] for w in every)
        return tuple(1 << (size - 1).bit_length() for size in most)

    def steer(self, logits_RV, progress: Progress, wanted: Wanted, i_R: jax.Array, left_R: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits of step `i`, with `left` tokens still to write, and the form (W * F) that each row begins if it takes that form's first token,
        int32 [R], -1 none.

        No sentence ends without the words: what ending it would weigh, beginning the likeliest missing word weighs at least.
        """
        rows, lacks, last = jnp.arange(len(logits_RV)), missing(progress, wanted), progress.last_R
        any_R, between = jnp.any(lacks, axis=1), progress.inside_R == 0
        barred = jnp.asarray(self.ends_V) | (jnp.asarray(self.stops_V) & ~((last >= 0x30) & (last <= 0x39))[:, None])  # no stop: 3.5
        end = jnp.max(jnp.where(barred, logits_RV, NEVER), axis=1)
        need = 1 + jnp.sum(jnp.where(lacks, wanted.tokens_RW, 0), axis=1)
        stuck = jnp.all(barred | (logits_RV <= NEVER / 2), axis=1)
        late = left_R <= need + jnp.minimum(ENDING, (i_R + left_R) // 4)
        must = any_R & ((between & (late | stuck)) | (left_R <= need) | progress.closing_R)

        here = jnp.where(i_R == 0, _START, jnp.where(_among(last, _STOPS), _AFTER, _WITHIN))
        own_RW = jnp.take_along_axis(logits_RV, jnp.maximum(wanted.forms_RWFn[rows, :, here, 0], 0), axis=1)
        best = jnp.argmax(jnp.where(lacks, own_RW, 2 * NEVER), axis=1)
        likes = jnp.where(wanted.begun_RWF[rows, best, here], own_RW[rows, best] + PULL, NEVER)
        listed = (here == _WITHIN) & ~_among(last, _COMMAS) & ((end > likes) | must)
        how = jnp.where(listed, _LISTED, here)
        first = jnp.maximum(wanted.forms_RWFn[rows, best, how, 0], 0)
        lifted = jnp.maximum(likes, end)
        offered = any_R & (must | (between & (lifted >= logits_RV[rows, first]) & (lifted > NEVER / 2)))

        logits = jnp.where(any_R[:, None] & barred, NEVER, logits_RV)
        logits = logits.at[rows, first].set(jnp.where(offered, lifted, logits[rows, first]))
        written = progress.form_R >= 0
        now = wanted.forms_RWFn[rows, progress.form_R // _FORMS, progress.form_R % _FORMS, progress.place_R]
        forced = jnp.where(written, now, jnp.where(must, first, -1))
        over = ~written & (progress.place_R > 0) & jnp.any(progress.open_RW, axis=1)  # it must not become another word
        logits = jnp.where(over[:, None] & jnp.asarray(self.joins_V), NEVER, logits)
        closes = progress.closing_R & ~any_R & (end > NEVER / 2)
        logits = jnp.where(closes[:, None] & ~barred, NEVER, logits)
        only = jnp.arange(logits.shape[1]) == forced[:, None]
        logits = jnp.where(forced[:, None] >= 0, jnp.where(only, 0.0, NEVER), logits)
        return logits, jnp.where(offered & ~written, best * _FORMS + how, -1)

    def grown(self, progress: Progress, wanted: Wanted, token_R: jax.Array, offer_R: jax.Array) -> Progress:
        """After a further token, of logits that came with the offer."""
        rows, slot = jnp.arange(len(token_R)), jnp.asarray(self.slot_of_V)[token_R]
        apart = jnp.asarray(self.apart_V)[token_R]
        held = (slot >= 0)[:, None] & wanted.held_RMW[rows, jnp.maximum(slot, 0)]
        p = progress._replace(
            seen_RW=progress.seen_RW | held, open_RW=progress.open_RW & ~apart[:, None], prefix_RWL=progress.prefix_RWL & ~apart[:, None, None],
            last_R=jnp.where(apart, ord("x"), progress.last_R), inside_R=jnp.where(apart, 0, progress.inside_R),
        )  # fmt: skip
        bytes_TR = jnp.asarray(self.bytes_VT)[token_R].T
        p, _ = jax.lax.scan(lambda p, byte: (_read(p, wanted, byte), None), p, bytes_TR)
        taken = (offer_R >= 0) & (token_R == wanted.forms_RWFn[rows, offer_R // _FORMS, offer_R % _FORMS, 0])
        form = jnp.where(taken, offer_R, progress.form_R)
        place = jnp.where(taken, 1, jnp.where(form >= 0, progress.place_R + 1, 0))
        padded = jnp.pad(wanted.forms_RWFn, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=-1)
        whole = (form >= 0) & (padded[rows, form // _FORMS, form % _FORMS, place] < 0)
        mine = whole[:, None] & (jnp.arange(wanted.size_RW.shape[1]) == (form // _FORMS)[:, None])
        last = wanted.edges_RW2[..., 1]
        p = p._replace(seen_RW=p.seen_RW | (mine & ~last), open_RW=p.open_RW | (mine & last))
        return p._replace(form_R=jnp.where(whole, -1, form), place_R=place, closing_R=whole & (form % _FORMS == _LISTED))


def _read(p: Progress, wanted: Wanted, byte_R: jax.Array) -> Progress:
    """After one more byte, none where it is -1. Characters count once they are whole: broken ones are not shown."""
    real, ascii, lead = byte_R >= 0, byte_R < 0x80, byte_R >= 0xC0
    more = jnp.where(byte_R < 0xE0, 1, jnp.where(byte_R < 0xF0, 2, 3))
    whole = ascii | (~lead & (p.inside_R == 1))
    partial = jnp.where(lead, byte_R & (0x3F >> more), (p.partial_R << 6) | (byte_R & 0x3F))
    character = jnp.where(ascii, byte_R, partial)
    start = ~wanted.edges_RW2[..., 0] | ~_spaced(p.last_R)[:, None]
    before = jnp.concatenate([start[..., None], p.prefix_RWL[..., :-1]], axis=-1)
    prefix = before & (wanted.bytes_RWL == byte_R[:, None, None])
    hit = jnp.take_along_axis(prefix, jnp.maximum(wanted.size_RW - 1, 0)[..., None], axis=-1)[..., 0] & (wanted.size_RW > 0)
    edge = wanted.edges_RW2[..., 1]
    new = p._replace(
        seen_RW=p.seen_RW | (p.open_RW & (whole & ~_spaced(character))[:, None]) | (hit & ~edge),
        open_RW=(p.open_RW & ~whole[:, None]) | (hit & edge),
        prefix_RWL=prefix,
        last_R=jnp.where(whole, character, p.last_R),
        inside_R=jnp.where(ascii, 0, jnp.where(lead, more, jnp.maximum(p.inside_R - 1, 0))),
        partial_R=partial,
    )
    return jax.tree.map(lambda a, b: jnp.where(real.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, p)


def _spaced(c: jax.Array) -> jax.Array:
    """Whether characters (ASCII in lower case) are letters or digits of a script with spaces, as `words.edges` says, for all common ones."""
    ascii = ((c >= 0x30) & (c <= 0x39)) | ((c >= 0x61) & (c <= 0x7A))
    return ascii | ((c >= 0xC0) & (c < 0x2000)) | ((c >= 0xAC00) & (c < 0xD7A4))


def _among(characters: jax.Array, listed: str) -> jax.Array:
    return jnp.isin(characters, jnp.array([ord(c) for c in listed]))


def _first(text: bytes) -> str:
    """The first character of UTF-8, '' where it is not whole."""
    for size in range(1, 5):
        try:
            return text[:size].decode()
        except UnicodeDecodeError:
            continue
    return ""


def _forms(word: str) -> list[str]:
    """The word at the very start, in a sentence, after the end of one, and at its end."""
    if not words.edges(word)[0]:
        return [word, word, word, "，" + word]
    capital = word[:1].upper() + word[1:]
    return [capital, " " + word, " " + capital, ", " + word]
