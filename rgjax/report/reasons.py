"""Written reasons beside what the system read, with copied titles and attribute values marked."""

from __future__ import annotations

import itertools
from html import escape

from rgjax.metrics import fields, grounding

_SHOWN_HISTORY = 6


def outputs(rows: list[dict]) -> str:
    """The first rows of outputs.jsonl as cards: {"example": ..., "reason": ...}."""
    if not rows:
        return ""
    cards = [_output(row.get("example") or {}, str(row.get("reason") or "")) for row in rows]
    note = '<p class="soft">Marked: titles of the history and attribute values of the item that the reason copies.</p>'
    return f'<section id="outputs"><h2>Reasons beside their inputs</h2>{note}{"".join(cards)}</section>'


def samples(rows: list[dict]) -> str:
    """Sample reasons by item, one line per evaluation step, so that learning can be read."""
    if not rows:
        return ""
    key = lambda row: (str(row.get("item")), str(row.get("history")), str(row.get("reference")))
    groups = itertools.groupby(sorted(rows, key=key), key)  # the sort is stable: steps stay in order within an item
    cards = [_sample(list(group)) for _, group in groups]
    return f'<section id="samples"><h2>Samples during training</h2>{"".join(cards)}</section>'


def _output(example: dict, reason: str) -> str:
    item = example.get("item") or {}
    titles = fields.history_titles(example)
    copied = [*titles, fields.item_title(example), *fields.values(item)]
    user = example.get("user") or {}
    parts = [
        ("item", _entity(item)),
        ("shopper", escape("; ".join(filter(None, [str(user.get("profile") or ""), _listed(user)])))),
        ("history", _history(titles, fields.reason(example) + " " + reason)),
        ("control", escape(_plain(example.get("control") or {}))),
        ("reference", highlight(fields.reason(example), copied)),
        ("written", highlight(reason, copied)),
    ]
    return _card(parts)


def _sample(rows: list[dict]) -> str:
    first = rows[0]
    titles = [str(title) for title in first.get("history") or []]
    copied = [*titles, str(first.get("item") or "")]
    parts = [("item", escape(str(first.get("item") or ""))), ("history", _history(titles, ""))]
    parts += [
        ("control", escape(_plain(first.get("control") or {}))),
        ("reference", highlight(str(first.get("reference") or ""), copied)),
    ]
    shown = rows if len(rows) <= 4 else [rows[0], rows[len(rows) // 2], *rows[-2:]]
    parts += [(f"step {row.get('step')}", highlight(str(row.get("reason") or ""), copied)) for row in shown]
    return _card(parts, bold=f"step {shown[-1].get('step')}")


def _card(parts: list[tuple[str, str]], bold: str = "written") -> str:
    """A definition list of (label, HTML); empty values are left out, except what the system wrote."""
    rows = []
    for label, value in parts:
        if value or label == bold:
            style = ' class="written"' if label == bold else ""
            rows.append(f"<dt>{escape(label)}</dt><dd{style}>{value or '<i>(empty)</i>'}</dd>")
    return f'<div class="card"><dl>{"".join(rows)}</dl></div>'


def _entity(entity: dict) -> str:
    name = escape(str(entity.get("title") or entity.get("id") or ""))
    details = escape(_listed(entity))
    return f"<b>{name}</b>{f' <span class=soft>{details}</span>' if details else ''}"


def _listed(entity: dict) -> str:
    grouped: dict[str, list[str]] = {}
    for key, value in fields.pairs(entity):
        grouped.setdefault(str(key), []).append(value)
    return "; ".join(f"{key}: {', '.join(values)}" for key, values in grouped.items())


def _plain(control: dict) -> str:
    return ", ".join(f"{key}={value}" for key, value in control.items())


def _history(titles: list[str], texts: str) -> str:
    """The latest titles and those that `texts` name; how many are left out."""
    shown = [t for i, t in enumerate(titles) if i >= len(titles) - _SHOWN_HISTORY or grounding.find(texts, t) >= 0]
    hidden = len(titles) - len(shown)
    return (f'<span class="soft">{hidden} earlier,</span> ' if hidden else "") + " · ".join(map(escape, shown))


def highlight(text: str, phrases: list[str]) -> str:
    """`text` as HTML in which the phrases (whole words, any case, longer ones first) are marked."""
    folded, spans = text.lower(), []
    if len(folded) != len(text):  # a few letters change length in lower case; positions would not fit
        folded = text
    for phrase in sorted({p.lower() for p in phrases if p}, key=len, reverse=True):
        at = grounding.find(folded, phrase)
        while at >= 0:
            spans.append((at, at + len(phrase)))
            folded = folded[:at] + "\0" * len(phrase) + folded[at + len(phrase) :]
            at = grounding.find(folded, phrase, at + len(phrase))
    parts, end = [], 0
    for start, stop in sorted(spans):
        parts += [escape(text[end:start]), f"<mark>{escape(text[start:stop])}</mark>"]
        end = stop
    return "".join(parts) + escape(text[end:])
