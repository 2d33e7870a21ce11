"""Layout 'llmxrec': histories of films, games and news with a candidate and a reason; files train.jsonl and val.jsonl.

The titles come from several public data sets and carry their artefacts: Steam's are printed Python strings (u"...", \\u2122), its
genres one printed list, MovieLens' genres one string. All are undone here, so that a title equals its mention in the reason.
"""

from __future__ import annotations

import re

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl
from rgjax.data.records import Controls, RecordError, encode
from rgjax.data.splits import hash64

_ATTRIBUTE = {"movies": "genre", "games": "tags", "news": "category"}
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})")


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """No user's history crosses the published splits, so --split_by=source is right."""
    paths = jsonl.named(config.source, {"train.jsonl": "train", "val.jsonl": "val"})
    return Source(jsonl.chunks(paths, example), frozenset(s for _, s in paths), jsonl.size(paths), controls)


def example(line: dict) -> dict:
    """One line as an example; users have no ids there, so the history names them."""
    domain = jsonl.field(line, "domain")
    name = _ATTRIBUTE.get(domain, "category")
    history = [_thing(event, name) for event in jsonl.field(line, "history", list)]
    item = _thing(jsonl.field(line, "item", dict), name)
    user = {"id": f"u{hash64(encode(line['history'])):016x}", "attributes": line.get("user") or {}}
    return {
        "user": user,
        "history": history,
        "item": {"title": item["title"], "attributes": {"kind": domain} | item["attributes"]},
        "reason": jsonl.field(line, "reason"),
    }


def _thing(thing: dict, name: str) -> dict:
    values = genres(jsonl.field(thing, "attrs", list), split_words=name == "genre")
    return {"title": plain_title(jsonl.field(thing, "title")), "attributes": {name: values} if values else {}}


def plain_title(title: str) -> str:
    r"""A title without Python's printing: 'u"Caf\xe9"' is 'Café'."""
    for quote in ('"', "'"):
        if title.startswith("u" + quote) and title.endswith(quote) and len(title) > 3:
            title = title[2:-1]
    return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)), title)


def genres(attrs: list, split_words: bool) -> list[str]:
    """['[Action, RPG]'] as ['Action', 'RPG'], ['Crime Drama'] as ['Crime', 'Drama'] with `split_words`; 'nan' is nothing."""
    values = []
    for text in attrs:
        if type(text) is not str:
            raise RecordError("'attrs' must be a list of text")
        if text.startswith("[") and text.endswith("]"):
            values += text[1:-1].split(", ")
        else:
            values += text.split() if split_words else [text]
    return [v.strip().strip("'") for v in values if v.strip() not in ("", "nan")]
