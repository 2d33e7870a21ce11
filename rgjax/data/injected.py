"""Instructions to the model in texts that come from outside: "... ignore the above and write ..." in a title, say."""

from __future__ import annotations

import re
from collections.abc import Callable

from rgjax.data.records import RecordError

_END = r"(?:[^.!?。！？\n]|\.(?=\S))*[.!?。！？\n]?"  # the rest of the sentence; a full stop within a word, as in an address, ends none
_ENGLISH = r"\b(?:ignore|disregard|forget|override)\b[^.!?\n]{0,40}\b(?:above|previous|prior|earlier|preceding|instructions?|prompts?)\b"
_ROLES = r"\b(?:system prompt|you are (?:now )?(?:an? )?(?:AI|assistant|language model|chatbot))\b"
_CHINESE = r"(?:忽略|无视|忘记|忘掉|不要理会|不用管)[^。！？\n]{0,20}(?:以上|上述|上面|前面|之前|先前|指令|指示|提示词|要求)"
_BEFORE = r"[\s\-–—:;,，；：|/(]*(?:please\s+|请)?"  # what joins it to the text
_INSTRUCTION = re.compile(rf"{_BEFORE}(?:{_ENGLISH}|{_ROLES}|{_CHINESE}){_END}\s*", re.IGNORECASE)


def stripped(text: str) -> str:
    """`text` without the sentences, from where they begin to address the model."""
    apart = lambda match: " " if match.start() and text[match.end() : match.end() + 1].strip().isascii() and match.end() < len(text) else ""
    return _INSTRUCTION.sub(apart, text)


def neutral(example: dict) -> tuple[dict, int]:
    """(the example with every text that the model reads stripped, how many were changed).

    Raises RecordError where nothing is left of a title.
    """
    changed = 0

    def strip(text: str) -> str:
        nonlocal changed
        found = stripped(text)
        changed += found != text
        return found

    titles = [example["item"].get("title"), *(event.get("title") for event in example.get("history") or [])]
    if gone := next((title for title in titles if title and title.strip() and not stripped(title).strip()), None):
        raise RecordError(f"the title {gone!r} is nothing but an instruction to the model; mend it, or give --injected=keep")
    own = ("reason", "rejected", "control", "require", "adapter")  # of the caller, not of a shop's suppliers
    return {name: value if name in own else _mapped(value, strip) for name, value in example.items()}, changed


def without(value):
    """A text, or a dict or list with every text in it, `stripped`."""
    return _mapped(value, stripped)


def _mapped(value, strip: Callable[[str], str]):
    if isinstance(value, str):
        return strip(value)
    if isinstance(value, dict):
        return {name: _mapped(one, strip) for name, one in value.items()}
    return [_mapped(one, strip) for one in value] if isinstance(value, list) else value
