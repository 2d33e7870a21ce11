"""Cleaning of texts and examples: Unicode, HTML, control characters, white space. Cleaning twice changes nothing."""

from __future__ import annotations

import functools
import html
import re
import unicodedata

from rgjax.data.interactions import Catalogue

# Chinese sentence punctuation stays as written. NFKC would turn it into ASCII, and "，" before a Latin letter or "！" after a Chinese
# one is not a compatibility variant but correct typography: a model trained on the folded text would write bad Chinese.
# Full-width letters, digits, "％", "＆" and the like are folded: they are the same words, spelt with another key.
_FOLDED = re.compile("[^，！？：；（）～…]+")
_TAGS = (
    "a|abbr|article|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|footer|h[1-6]|head|header|hr|html|i|iframe|img|input"
    "|ins|label|li|link|main|mark|meta|nav|object|ol|option|p|pre|s|section|select|small|span|strike|strong|sub|sup|table|tbody|td"
    "|tfoot|th|thead|title|tr|u|ul|video"
)
# Only names that HTML knows: "<UNK>", "<3" or "a < b" are not tags.
_TAG = re.compile(
    rf"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|</?(?:{_TAGS}|script|style)\b(?:[\s/][^<>]*)?>", re.DOTALL | re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Control characters, soft hyphens, zero-width and direction marks, byte order marks, private use and non-characters. White
# space is left to str.split; the joiners U+200C and U+200D stay: emoji and scripts need them. Half a surrogate pair cannot be written
# as UTF-8 and becomes the replacement mark, which stays visible for the report.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufdd0-\ufdef\ufff0-\ufffc\ufffe\uffff"
    "\ue000-\uf8ff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ASCII_DIRTY = re.compile(r"[\x00-\x1f\x7f<&]")
_DIRTY = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad<&\u1680\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u2069\u3000\ufeff\ufdd0-\ufdef\ufff0-\ufffc\ufffe\uffff"
    "\ud800-\udfff\ue000-\uf8ff]"
)
# Text decoded with the wrong table: UTF-8 read as Latin-1 or Windows-1252, or characters already lost.
_TROUBLE = re.compile("\ufffd|[ÃÂ][\x80-\xbf]|â€[\x80-\xbf\u2018-\u203a\u20ac\u2122]|ï¿½|锟斤拷")
_SHORT = 200  # longest text the cache keeps, in characters


def clean_text(text: str) -> str:
    """`text` on one line, in NFKC (but for Chinese punctuation), without HTML, control characters or doubled white space."""
    ascii = text.isascii()
    spaced = "  " not in text and text[:1] != " " and text[-1:] != " "
    if spaced and (_ASCII_DIRTY if ascii else _DIRTY).search(text) is None and (ascii or _fold(text) == text):
        return text  # nearly every text: a few scans in C
    while True:  # one repair may uncover another ("&amp;lt;"); each shortens the text or settles it
        once = _fold(text)
        once = _ENTITY.sub(lambda m: html.unescape(m[0]), _TAG.sub(" ", once)) if "<" in once or "&" in once else once
        once = " ".join(_SURROGATE.sub("\ufffd", _CONTROL.sub("", once)).split())
        if once == text:
            return once
        text = once


def has_trouble(text: str) -> bool:
    """Whether `text` shows signs of a wrong encoding: replacement marks, UTF-8 read as something else."""
    return not text.isascii() and _TROUBLE.search(text) is not None


def clean_example(example: dict) -> dict:
    """A checked example (records.check) with all its texts clean, its fields in order and nothing empty inside them."""
    item, control, rejected = example["item"], example.get("control"), clean_text(example.get("rejected") or "")
    return {
        "user": _fields(example.get("user") or {}),
        "history": [_fields(event) for event in example.get("history") or ()],
        "item": _fields(item),
        "reason": clean_text(example.get("reason") or ""),
        **({"rejected": rejected} if rejected else {}),
        "control": {name: str(value) for name, value in control.items() if value is not None} if control else {},
    }


def clean_catalogue(items: Catalogue) -> Catalogue:
    """The items of a shop with clean titles and attributes."""
    return Catalogue(items.ids, [clean_text(title) for title in items.titles], [_attributes(found) for found in items.attributes])


def _fold(text: str) -> str:
    if unicodedata.is_normalized("NFKC", text):
        return text
    return _FOLDED.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)


@functools.lru_cache(maxsize=1 << 16)
def _cached(text: str) -> str:
    return clean_text(text)


def _fields(fields: dict) -> dict:
    """A user, item or event: ids become text, texts clean, what is empty goes."""
    out = {}
    for name, value in fields.items():
        if type(value) is str:
            value = _cached(value) if len(value) <= _SHORT else clean_text(value)
        elif name == "attributes":
            value = _attributes(value) if value else None
        elif (name == "id" or name == "item") and value is not None:
            value = str(value)
        if value is not None and value != "" and value != {}:
            out[name] = value
    return out


def _attributes(attributes: dict) -> dict:
    out = {}
    for name, value in attributes.items():
        if type(value) is str:
            value = _cached(value) if len(value) <= _SHORT else clean_text(value)
        elif type(value) is list:
            value = [v for v in [clean_text(v) if type(v) is str else v for v in value] if v is not None and v != ""]
        if value is not None and value != "" and value != []:
            out[_cached(name)] = value
    return out
