"""From tokens to the text that is shown: slots filled, hard limits kept, nothing unfinished."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rgjax.config import DecodeConfig
from rgjax.data import slots, words
from rgjax.data.scripts import UNSPACED
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode.rules import length_of
from rgjax.decode.writer import Hypothesis

_SENTENCE = re.compile(r"[^.!?。！？…]*[.!?。！？…]+[\"'”’》)]*\s*")
_WORD = re.compile(rf"[{UNSPACED}]\s*|[^\s{UNSPACED}]+\s*")


def finish(
    hypothesis: Hypothesis, surfaces: dict[str, str], tokenizer: Tokenizer, config: DecodeConfig, required: Sequence[str] = ()
) -> str:
    """The reason as the shopper sees it.

    A text that ran out of tokens, or may have been ended by the hard limit in mid-sentence, is cut back to its last whole
    sentence; sentences with a banned word are dropped; a text above the hard limit loses whole sentences from its end,
    and only if one sentence is already too long, words. No cut goes below the least length, and no sentence goes
    with the only mention of a `required` word: it stays unfinished, and a banned word in it goes alone. A full stop in a title is told
    from the end of a sentence by the first of these cuts only.
    """
    written = tokenizer.decode(hypothesis.ids).replace("\ufffd", "")
    text = tidy(slots.fill(written, surfaces))
    if not hypothesis.ended or config.max_length:
        part = whole_sentences(written)  # before titles are put in: theirs are no ends of sentences, and a slot is one token
        whole = tidy(slots.fill(part, surfaces))
        size = len(tokenizer.encode(part)) if config.length_unit == "tokens" else length_of(whole, config.length_unit)
        text = whole if whole and size >= config.min_length and _keeps(whole, text, required) else text
    patterns = [words.pattern(word) for word in words.listed(config.banned_words)]
    text = _without_any(text, patterns, required)
    if config.max_length and config.length_unit != "tokens":
        # A cut may leave a banned word of what was a longer one.
        text = _without_any(shorten(text, config.max_length, config.length_unit, required), patterns, required)
    return text


def tidy(text: str) -> str:
    """One space between words, none before closing punctuation nor between Chinese characters."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.!?;:])(?=\s|$)", r"\1", text)
    return re.sub(rf"(?<=[{UNSPACED}]) (?=[{UNSPACED}])", "", text)


def whole_sentences(text: str) -> str:
    """The leading sentences that are complete; empty where none is."""
    return "".join(m[0] for m in _SENTENCE.finditer(text)).strip()


def _sentences(text: str) -> list[str]:
    """All of the text in sentences, the last of which may be unfinished or empty."""
    whole = [m[0] for m in _SENTENCE.finditer(text)]
    return [*whole, text[sum(map(len, whole)) :]]


def shorten(text: str, limit: int, unit: str, required: Sequence[str] = ()) -> str:
    """At most `limit` words or characters: whole sentences go from the end, or, if that leaves none, words.

    Nothing goes with the only mention of a `required` word, unless these alone are too long.
    """
    if length_of(text, unit) <= limit:
        return text
    required = [word for word in required if words.pattern(word).search(text)]
    for pieces in (_sentences(text), _WORD.findall(text) if required else []):
        if kept := _fewer(pieces, limit, unit, required):
            return kept
    if unit == "words":
        return " ".join(text.split()[:limit])
    cut = text[:limit]
    if text[limit : limit + 1].isalnum() and " " in cut and text[limit].isascii():
        cut = cut[: cut.rindex(" ")]
    return cut.strip()


def _fewer(pieces: list[str], limit: int, unit: str, required: Sequence[str]) -> str:
    """What is left when pieces go, the last first, until the rest fits; empty where the required words leave too much."""
    for i in range(len(pieces) - 1, -1, -1):
        if not words.missing("".join(rest := pieces[:i] + pieces[i + 1 :]), required):
            pieces = rest
            if length_of(kept := "".join(pieces).strip(), unit) <= limit:
                return kept
    return ""


def _keeps(shorter: str, text: str, required: Sequence[str]) -> bool:
    return len(words.missing(shorter, required)) == len(words.missing(text, required))


def _without_any(text: str, patterns: list[re.Pattern], required: Sequence[str] = ()) -> str:
    before = None
    while text != before:  # what is left may form a banned word anew
        before = text
        for pattern in patterns:
            text = _without(text, pattern, required)
    return text


def _without(text: str, pattern: re.Pattern, required: Sequence[str]) -> str:
    if not pattern.search(text):
        return text
    kept = "".join(s for s in _sentences(text) if not pattern.search(s)).strip()
    whole = kept and _keeps(kept, text, required)
    if whole and not pattern.search(kept):
        return kept
    return tidy(pattern.sub("", kept if whole else text))  # the only sentence, or a word that reaches over a full stop
