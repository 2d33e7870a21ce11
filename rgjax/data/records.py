"""What an example is, and the check that a dict is one.

    {"user": {"id", "profile", "attributes"},
     "history": [{"item", "title", "attributes", "event", "rating", "time"}, ...],
     "item": {"id", "title", "attributes", "description", "vectors"},
     "control": {name: value},
     "reason": text,
     "rejected": text,
     "require": [word, ...]}

Only `item` is required, and `reason` for training; `rejected` is another reason for the same, liked less than `reason`. Ids are strings or
whole numbers; `attributes` map names to a string, number, truth value or a list of these; `rating` and `time` are numbers; `vectors` map
names to lists of numbers. `require` lists words that a reason to be written must hold. A top-level `id` is allowed; neither is kept. On
disk every example has all fields but `rejected`, which some have; ids and control values are strings, and history is oldest first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rgjax.errors import UserError

_FIELDS = frozenset(("user", "history", "item", "control", "reason", "rejected", "id", "adapter", "require"))
_USER = frozenset(("id", "profile", "attributes"))
_EVENT = frozenset(("item", "title", "attributes", "event", "rating", "time"))
_ITEM = frozenset(("id", "title", "attributes", "description", "vectors"))
_SCALARS = frozenset((str, int, float, bool, type(None)))
_TEXT = frozenset((str, type(None)))
_ID = frozenset((str, int, type(None)))
_NUMBER = frozenset((int, float, type(None)))
_PLAIN = {"item": (str,), "title": (str,), "attributes": (dict,), "event": (str,), "rating": (int,), "time": (int,)}

Controls = Mapping[str, list[str]]


class RecordError(ValueError):
    """One example is not as documented; the message is one sentence that names the field, `kind` its line in the report."""

    def __init__(self, message: str = "", kind: str = "malformed"):
        super().__init__(message)
        self.kind = kind


class ControlError(RecordError):
    """A control code or value that the configuration does not declare: a mistake of the declaration, not of one line."""


class Row(NamedTuple):
    """What a reader yields: an example or why there is none, where it stood, its file's split and its size in bytes."""

    example: dict | None
    where: str
    split: str | None = None
    size: int = 0
    problem: RecordError | None = None


def check(example: Any, controls: Controls | None = None, require_reason: bool = True) -> None:
    """Raises RecordError for the first field that is not as documented; `controls=None` does not look at control codes."""
    if type(example) is not dict:
        raise RecordError(f"an example must be a JSON object, not {_kind(example)}")
    _known(example, _FIELDS, "")
    item = example.get("item")
    if type(item) is not dict:
        raise RecordError("'item' is missing" if item is None else f"'item' must be an object, not {_kind(item)}")
    _item(item)
    _user(example.get("user"))
    _history(example.get("history"))
    if controls is not None:
        _control(example.get("control"), controls)
    _expect(example, "adapter", _TEXT, "", "text")
    required = example.get("require")
    if required is not None and not (type(required) is list and all(type(word) is str and word.strip() for word in required)):
        raise RecordError("'require' must be a list of words that are not empty")
    reason = example.get("reason")
    if type(reason) not in _TEXT:
        raise RecordError(f"'reason' must be text, not {_kind(reason)}")
    _expect(example, "rejected", _TEXT, "", "text")
    if require_reason and (reason is None or not reason.strip()):
        raise RecordError("'reason' is missing" if reason is None else "'reason' is empty", "empty reason")


def parse_controls(text: str) -> dict[str, list[str]]:
    """'style=short|long;tone=warm' as {"style": ["short", "long"], "tone": ["warm"]}; raises UserError when it is not of that form."""
    controls: dict[str, list[str]] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, values = part.partition("=")
        listed = [v.strip() for v in values.split("|")]
        if not (equals and name.strip() and all(listed)) or name.strip() in controls or len(set(listed)) < len(listed):
            raise UserError(f"--controls has '{part}'; declare each code once, as name=value|value;name=value|value.")
        controls[name.strip()] = listed
    return controls


def encode(value: Any) -> str:
    """Compact JSON, the same text for the same value."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _known(fields: dict, known: frozenset, path: str) -> None:
    surplus = fields.keys() - known
    if surplus:
        name = min(map(str, surplus))
        hint = f"; put it under {path}attributes" if path else f"; the fields are {', '.join(sorted(_FIELDS - {'id'}))}"
        raise RecordError(f"'{path}{name}' is not a known field{hint}")


def _expect(fields: dict, name: str, kinds: frozenset, path: str, what: str) -> None:
    value = fields.get(name)
    if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
        raise RecordError(f"'{path}{name}' must be {what}, not {_kind(value)}{' that is finite' if type(value) is float else ''}")


def _user(user: Any) -> None:
    if user is None:
        return
    if type(user) is not dict:
        raise RecordError(f"'user' must be an object, not {_kind(user)}")
    _known(user, _USER, "user.")
    _expect(user, "id", _ID, "user.", "text or a whole number")
    _expect(user, "profile", _TEXT, "user.", "text")
    _attributes(user.get("attributes"), "user.")


def _item(item: dict) -> None:
    _known(item, _ITEM, "item.")
    _expect(item, "id", _ID, "item.", "text or a whole number")
    _expect(item, "title", _TEXT, "item.", "text")
    _expect(item, "description", _TEXT, "item.", "text")
    _attributes(item.get("attributes"), "item.")
    if not any(item.get(k) not in (None, "", {}) for k in ("id", "title", "description", "attributes")):
        raise RecordError("'item' says nothing; give it an id, a title, a description or attributes")
    vectors = item.get("vectors")
    if vectors is None:
        return
    if type(vectors) is not dict:
        raise RecordError(f"'item.vectors' must be an object of lists of numbers, not {_kind(vectors)}")
    for name, vector in vectors.items():
        if type(vector) is not list or not all(type(x) in (int, float) and math.isfinite(x) for x in vector):
            raise RecordError(f"'item.vectors.{name}' must be a list of finite numbers")


def _history(history: Any) -> None:
    if history is None:
        return
    if type(history) is not list:
        raise RecordError(f"'history' must be a list of events, not {_kind(history)}")
    for i, event in enumerate(history):
        if type(event) is not dict or not all(type(v) in _PLAIN.get(k, ()) for k, v in event.items()) or not event.get("title"):
            _event(event, i)
        elif event.get("attributes"):
            _attributes(event["attributes"], f"history[{i}].")


def _event(event: Any, i: int) -> None:
    """The slow and explicit look at an event that is not plainly right."""
    path = f"history[{i}]."
    if type(event) is not dict:
        raise RecordError(f"'history[{i}]' must be an object, not {_kind(event)}")
    _known(event, _EVENT, path)
    if event.get("item") is None and not event.get("title"):
        raise RecordError(f"'history[{i}]' has neither 'item' nor 'title'")
    _expect(event, "item", _ID, path, "text or a whole number")
    _expect(event, "title", _TEXT, path, "text")
    _expect(event, "event", _TEXT, path, "text")
    _expect(event, "rating", _NUMBER, path, "a number")
    _expect(event, "time", _NUMBER, path, "a number (seconds)")
    _attributes(event.get("attributes"), path)


def _attributes(attributes: Any, path: str) -> None:
    if attributes is None:
        return
    if type(attributes) is not dict:
        raise RecordError(f"'{path}attributes' must be an object, not {_kind(attributes)}")
    for name, value in attributes.items():
        if type(value) is str:
            continue
        for one in value if type(value) is list else (value,):
            if type(one) not in _SCALARS or (type(one) is float and not math.isfinite(one)):
                raise RecordError(f"'{path}attributes.{name}' must be text, a finite number, true or false, or a list of these")


def _control(control: Any, controls: Controls) -> None:
    if not control:
        return
    if type(control) is not dict:
        raise RecordError(f"'control' must be an object, not {_kind(control)}")
    for name, value in control.items():
        if value is None:
            continue
        if name not in controls:
            known = f"declared are {', '.join(controls)}" if controls else "none is declared"
            raise ControlError(f"control code '{name}' is not declared; {known}")
        if str(value) not in controls[name]:
            raise ControlError(f"control value '{name}={value}' is not declared; allowed are {', '.join(controls[name])}")
