"""Reading an example: titles, attribute values and reasons out of the plain dicts of the JSON lines format."""

from __future__ import annotations

from typing import Any


def item_title(example: dict) -> str:
    """Title of the recommended item; empty when it has none."""
    return str((example.get("item") or {}).get("title") or "").strip()


def history_titles(example: dict) -> list[str]:
    """Distinct non-empty titles of the history in its own order (oldest first)."""
    titles = (str(event.get("title") or "").strip() for event in example.get("history") or [])
    return list(dict.fromkeys(title for title in titles if title))


def values(entity: dict | None) -> list[str]:
    """Attribute values of an item or event as distinct strings, lists flattened; booleans and empty values say nothing and go."""
    return list(dict.fromkeys(value for _, value in pairs(entity)))


def pairs(entity: dict | None) -> list[tuple[str, str]]:
    """(attribute, value) pairs of an item, event or user, one per value of a list."""
    attributes: dict[str, Any] = (entity or {}).get("attributes") or {}
    found = []
    for key, value in attributes.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None and not isinstance(one, bool) and str(one).strip():
                found.append((key, str(one).strip()))
    return found


def reason(example: dict) -> str:
    """The reference reason; empty when it is missing."""
    return str(example.get("reason") or "")
