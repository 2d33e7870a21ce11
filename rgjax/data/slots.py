"""Copy slots: titles and attribute values that a reason takes over from its input become one token each.

A small model cannot learn to spell thousands of titles, and a misspelt title is an invented product. So the prompt numbers
what may be copied (`<h3>Fargo`), the training text says `<h3>` where the writer wrote "Fargo", and the finished text gets
the input's own string back. This is delexicalisation (Wen et al. 2015, arXiv:1508.01745), with pointers as the slots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MARKUP = re.compile(r"<(?=\||/?s>|pad>|item>|[ha]\d+>)")
_SLOT = re.compile(r"<(?:item|[ha]\d+)>")
_FILLED = re.compile(r"(\s*[\"“《]?)(<(?:item|[ha]\d+)>)([\"”》]?)")
_QUOTED = re.compile(r"([\"“《])([^\"“”《》]{2,160})([\"”》])")
_ARTICLE = re.compile(r"^(.*), (The|A|An|Les|La|Le|Il|Das|Der)$")
_LEADING = re.compile(r"^(the|a|an) ")


def neutral(text: str) -> str:
    """`text` with anything that looks like one of our tokens disarmed, so that a title can never act as markup."""
    return _MARKUP.sub("‹", text) if "<" in text else text


def natural_title(title: str) -> str:
    """'Godfather, The' -> 'The Godfather'; other titles as they are."""
    found = _ARTICLE.match(title)
    return f"{found[2]} {found[1]}" if found else title


def title_key(title: str) -> str:
    """A form in which spellings of one title agree: case, punctuation and a leading article do not count."""
    words = re.sub(r"[\W_]+", " ", natural_title(title.strip()).casefold()).strip()
    return _LEADING.sub("", words)


def extract(reason: str, titles: Mapping[str, str], values: Mapping[str, str] = {}) -> str:
    """`reason` with every mention of a title or value replaced by its slot.

    `titles` and `values` map slot token -> surface string. In running text only exact mentions count, of titles of at least
    3 characters and values of at least 2: shorter ones match by accident. Quoted spans match titles loosely (`title_key`).
    """
    text = neutral(reason)
    keys: dict[str, str] = {}
    for slot, title in titles.items():
        keys.setdefault(title_key(title), slot)
    keys.pop("", None)  # a title of punctuation only would match any quoted punctuation

    def quoted(found: re.Match) -> str:
        body = found[2].rstrip(" .,;!?，。！？")
        slot = keys.get(title_key(body))
        return f"{found[1]}{slot}{found[2][len(body):]}{found[3]}" if slot else found[0]

    text = _QUOTED.sub(quoted, text)
    surfaces: dict[str, str] = {}
    for slot, title in titles.items():
        for form in (title, natural_title(title)):
            if len(form) >= 3:
                surfaces.setdefault(neutral(form), slot)
    for slot, value in values.items():
        if len(value) >= 2:
            surfaces.setdefault(neutral(value), slot)
    longest_first = sorted((s for s in surfaces if s in text), key=len, reverse=True)  # few: compiling all cost most of the pipeline
    if not longest_first:
        return text
    pattern = "|".join(rf"{_edge(s[0], left=True)}{re.escape(s)}{_edge(s[-1], left=False)}" for s in longest_first)
    # What stands in a quote may be a slot by now, and "item" is a title that someone sells: slots are stepped over.
    return re.sub(f"{_SLOT.pattern}|{pattern}", lambda m: surfaces.get(m[0], m[0]), text)


def _edge(char: str, left: bool) -> str:
    """Latin words match whole; scripts without spaces match anywhere."""
    if not (char.isascii() and char.isalnum()):
        return ""
    return r"(?<![A-Za-z0-9])" if left else r"(?![A-Za-z0-9])"


def fill(text: str, surfaces: Mapping[str, str]) -> str:
    """The inverse of `extract`: slots become their strings; a slot without a referent disappears with its quotes."""

    def resolve(found: re.Match) -> str:
        surface = surfaces.get(found[2])
        return "" if surface is None else found[1] + surface + found[3]

    return _FILLED.sub(resolve, text)


def quoted_spans(text: str) -> list[str]:
    """What stands in double quotes or title marks, without them."""
    return [body for _, body, _ in _QUOTED.findall(text)]
