"""Words that must not or must stand in a text: how they are listed, and what counts as one."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from rgjax.data.scripts import UNSPACED

_SPACED = rf"[^\W_{UNSPACED}]"  # only among letters of scripts that put spaces between words does one have edges


def listed(text: str) -> list[str]:
    """The words of a comma-separated list, each once."""
    return list(dict.fromkeys(w.strip() for w in text.split(",") if w.strip()))


@functools.lru_cache(maxsize=1 << 14)
def pattern(word: str) -> re.Pattern:
    """Finds `word` in any case: as a whole word, except that an end in a script without spaces matches anywhere."""
    left, right = edges(word)
    return re.compile((rf"(?<!{_SPACED})" if left else "") + re.escape(word) + (rf"(?!{_SPACED})" if right else ""), re.IGNORECASE)


def edges(word: str) -> tuple[bool, bool]:
    """Whether its (first, last) character is a letter or digit of a script with spaces, beside which another makes it another word."""
    return bool(re.match(_SPACED, word)), bool(re.match(_SPACED, word[-1]))


def missing(text: str, wanted: Iterable[str]) -> list[str]:
    """Those of the words that do not stand in `text`."""
    return [word for word in wanted if not pattern(word).search(text)]
