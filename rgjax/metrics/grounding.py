"""Whether an output speaks of what the input holds: titles, quoted titles, attribute values, and the length asked for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from rgjax.metrics import bootstrap, fields, language
from rgjax.metrics.bootstrap import Metric

_QUOTED = re.compile(r'“([^“”]+)”|"([^"\n]+)"|《([^《》]+)》|「([^「」]+)」')
_TRAILING_ARTICLE = re.compile(r"^(.*\S),\s+(the|an?|les?|la|l'|il|el|los|las|das|der|die)$", re.IGNORECASE)
_LEADING_ARTICLE = re.compile(r"^(the|an?)\s+(?=\S)", re.IGNORECASE)
_ANNOTATION = re.compile(r"\s*\([^()]*\)\s*$")  # "(1995)", "(ID4)" after a title
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_END = " ,.;:!?，。；：！？、…"


@functools.lru_cache(maxsize=1 << 18)  # the same titles recur in many histories
def normalise_title(title: str) -> str:
    """A title without its article, trailing parenthesis and punctuation, case kept: 'Godfather, The' -> 'Godfather'."""
    bare = _ANNOTATION.sub("", title) or title
    bare = _LEADING_ARTICLE.sub("", _TRAILING_ARTICLE.sub(r"\1", bare.strip()))
    return normalise_text(bare) or normalise_text(title)


def normalise_text(text: str) -> str:
    """`text` with '&' written out, punctuation as spaces and single spaces; case kept ("Fargo's" holds the word Fargo)."""
    return " ".join(_PUNCTUATION.sub(" ", text.replace("&", " and ")).split())


def find(text: str, phrase: str, start: int = 0) -> int:
    """Position of `phrase` in `text` where it does not begin or end inside a word, or -1. Ideographs need no boundary."""
    while phrase and (at := text.find(phrase, start)) >= 0:
        end = at + len(phrase)
        if not (_glued(text[at - 1 : at], phrase[0]) or _glued(phrase[-1], text[end : end + 1])):
            return at
        start = at + 1
    return -1


def _glued(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    return all(c != "" and (c.isalnum() or c == "_") and not language.is_cjk(c) for c in (left, right))


def mentioned(text: str, titles: Iterable[str]) -> set[str]:
    """The titles that occur verbatim in `text`; longer ones first, so 'Alien' is not found inside 'Alien Nation'."""
    found = set()
    for title in sorted(set(titles), key=len, reverse=True):
        at = find(text, title)
        while at >= 0:
            found.add(title)
            text = text[:at] + "\0" * len(title) + text[at + len(title) :]
            at = find(text, title)
    return found


def mentioned_normalised(text: str, titles: Iterable[str]) -> set[str]:
    """Like `mentioned` after `normalise_title` and case folding; returns normalised, case-folded titles.

    A title of one word ('It', 'Heat') must keep its case: folded, it would be found in every text.
    """
    text = normalise_text(text)
    one_word, longer = set(), set()
    for title in map(normalise_title, titles):
        (longer if " " in title or language.cjk_share([title]) else one_word).add(title)
    found = mentioned(text.casefold(), {title.casefold() for title in longer})
    for title in sorted(found, key=len, reverse=True):  # words of a longer title are not mentions of a shorter one
        text = re.sub(re.escape(title), lambda match: "\0" * len(match[0]), text, flags=re.IGNORECASE)
    return found | {title.casefold() for title in mentioned(text, one_word)}


def quoted_spans(text: str) -> list[str]:
    """Texts inside “”, "", 《》 and 「」 without closing punctuation; single quotes are apostrophes too often to count."""
    spans = (next(filter(None, groups)).strip(_END) for groups in _QUOTED.findall(text))
    return [span for span in spans if span]


def names_history(example: dict, text: str) -> tuple[bool, bool]:
    """Whether `text` names a title of the history: verbatim, and normalised. The recommended item's own title does not count."""
    item, history = fields.item_title(example), fields.history_titles(example)
    own = {item}
    verbatim = mentioned(text, [item, *history]) & (set(history) - own)
    folded = {normalise_title(title).casefold() for title in history} - {normalise_title(item).casefold()}
    return bool(verbatim), bool(mentioned_normalised(text, [item, *history]) & folded)


def invented_spans(example: dict, text: str) -> tuple[int, int, int]:
    """Quoted spans of `text`: (invented verbatim, invented normalised, all).

    A span is grounded when it occurs, as whole words, in a title or an attribute value of the item or of the history.
    """
    spans = quoted_spans(text)
    if not spans:
        return 0, 0, 0
    entities = [example.get("item"), *(example.get("history") or [])]
    known = [fields.item_title(example), *fields.history_titles(example)]
    known += [value for entity in entities for value in fields.values(entity)]
    verbatim = sum(all(find(phrase, span) < 0 for phrase in known) for span in spans)
    folded = [form(phrase).casefold() for phrase in known for form in (normalise_text, normalise_title)]
    bare = [normalise_title(span).casefold().removesuffix(" s") for span in spans]  # "Fargo's" quotes Fargo
    return verbatim, sum(all(find(phrase, span) < 0 for phrase in folded) for span in bare), len(spans)


def copied_share(example: dict, text: str) -> float:
    """Share of the item's (attribute, value) pairs whose value occurs in `text` as whole words, up to case; NaN without any."""
    held, text = fields.pairs(example.get("item")), text.casefold()
    return sum(find(text, value.casefold()) >= 0 for _, value in held) / len(held) if held else float("nan")


def length(text: str, lang: str) -> int:
    """Whitespace-separated words of English, characters without spaces of Chinese."""
    return len(text.split()) if lang == "en" else len(language.characters(text))


def metrics(examples: Sequence[dict], outputs: Sequence[str], lang: str, max_words: int) -> dict[str, Metric]:
    """Shares x100: history and item mentions, invented quotations, copied attribute values, texts within `max_words`.

    A metric is left out when the examples cannot show it (no histories, no titles, no attribute values).
    """
    together = list(zip(examples, outputs, strict=True))
    found: dict[str, Metric] = {}
    nothing = float("nan")
    if any(fields.history_titles(e) for e in examples):
        named = [names_history(e, o) if fields.history_titles(e) else (nothing, nothing) for e, o in together]
        verbatim, normalised = zip(*named, strict=False)
        found["history_mention"] = bootstrap.mean(verbatim, 100)
        found["history_mention_normalised"] = bootstrap.mean(normalised, 100)
    if any(fields.item_title(e) for e in examples):
        titles = [fields.item_title(e) for e in examples]
        named = [find(o, title) >= 0 if title else nothing for title, o in zip(titles, outputs, strict=False)]
        found["item_mention"] = bootstrap.mean(named, 100)
        named = [bool(mentioned_normalised(o, [t])) if t else nothing for t, o in zip(titles, outputs, strict=False)]
        found["item_mention_normalised"] = bootstrap.mean(named, 100)
        verbatim, normalised, spans = zip(*(invented_spans(e, o) for e, o in together), strict=False)
        found["invented_quotes"] = bootstrap.ratio(verbatim, spans, 100)
        found["invented_quotes_normalised"] = bootstrap.ratio(normalised, spans, 100)
    if any(fields.pairs(e.get("item")) for e in examples):
        found["attribute_copy"] = bootstrap.mean([copied_share(e, o) for e, o in together], 100)
    found["length_compliance"] = bootstrap.mean([length(o, lang) <= max_words for o in outputs], 100)
    return found
