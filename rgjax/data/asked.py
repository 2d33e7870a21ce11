"""Whom to recommend to: a file of users, by id or with a history of their own."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from rgjax.data.interactions import Interactions, build
from rgjax.data.readers import jsonl
from rgjax.errors import UserError

_LARGEST = 1e15  # of a time, rating, price or quantity; NaN is below nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """`events` has one user per line, with what the shop knows of them and what the line adds; `ids` are the lines' own, or ''.

    `person` int [N] numbers who is followed from line to line, in order of their first lines; `added` int [N] counts the last events of a line's
    user that are the line's own.
    """

    events: Interactions
    ids: list[str]
    controls: list[dict]
    person: np.ndarray
    added: np.ndarray

    @property
    def strangers(self) -> np.ndarray:
        """bool [N]: users of whom no event is known."""
        return np.diff(self.events.offsets) == 0


def read(path: str, shop: Interactions, strangers: bool, follow: bool = False) -> Asked:
    """Reads JSON lines: {"user": ID}, {"history": [{"item": ID, "time": SECONDS, ...}]} or both, whose history then follows the stored one.

    With `follow` it follows the earlier lines of the same user, too.

    Every line is checked before anything is recommended. Raises UserError naming the first that is malformed, or names an unknown item, a user
    that is unknown and has no history (unless `strangers`), an event in the future, or the same event twice.
    """
    numbers, rows, ids, controls = {name: u for u, name in enumerate(shop.users)}, [], [], []
    followed: dict[str | int, tuple[int, list]] = {}  # by name, or the number of the line where there is none: (person, events so far)
    people, added = [], []
    for number, (where, line) in enumerate(jsonl.asked(path, "users, one each")):
        name, history = _line(line, where)
        person, before = followed.get(name if follow and name else number, (len(followed), []))
        if name and name not in numbers and not history and not before and not strangers:
            raise UserError(f"{where}: the shop knows no user '{name}' and the line has no history; add one, or --strangers for what is popular.")
        if not name and not history and not strangers:
            raise UserError(f"{where}: the history is empty and no user is named; add one of them, or --strangers for what is popular.")
        own = _events(history, shop, where)
        followed[name if follow and name else number] = person, before + own
        rows.append((numbers.get(name, -1) if name else -1, before + own))
        people.append(person)
        added.append(len(own))
        ids.append(name)
        controls.append(line.get("control") or {})
    return Asked(_joined(shop, rows, ids), ids, controls, np.array(people), np.array(added))


def _line(line: object, where: str) -> tuple[str, list]:
    if type(line) is not dict or not set(line) <= {"user", "history", "control"}:
        raise UserError(f'{where} has to be an object with "user", "history" or both, and "control" if wanted; mend it.')
    name, history = line.get("user"), line.get("history") or []
    name = name.get("id") if type(name) is dict else name
    name = "" if name is None else name
    if type(line.get("control") or {}) is not dict:
        raise UserError(f'{where}: "control" has to be an object of codes and values; mend it.')
    if not isinstance(name, (str, int)) or type(history) is not list or not all(type(event) is dict for event in history):
        raise UserError(f'{where}: "user" has to be an id and "history" a list of objects with "item"; mend it.')
    return str(name), history


def _events(history: list[dict], shop: Interactions, where: str) -> list[tuple]:
    found, seen = [], set()
    kinds = {name: i for i, name in enumerate(shop.events)}
    for place, event in enumerate(history):
        item = shop.items.index.get(str(event.get("item")))
        if item is None:
            raise UserError(f"{where}: the catalogue has no item '{event.get('item')}' (event {place + 1}); leave it out, or train with it.")
        numbers = [event.get(name) for name in ("time", "rating", "price", "quantity")]
        if not all(n is None or (type(n) in (int, float) and abs(n) < _LARGEST) for n in numbers):
            raise UserError(f"{where}: time, rating, price and quantity of event {place + 1} have to be finite numbers; mend it.")
        if (numbers[0] or 0) > time.time() + 86_400:
            raise UserError(f"{where}: event {place + 1} is in the future (time {numbers[0]}); times are seconds since 1970: mend it.")
        kind = event.get("event")
        if kind is not None and (type(kind) is not str or kind not in kinds):
            raise UserError(f"{where}: event {place + 1} is of kind '{kind}', and the shop has {', '.join(shop.events)}; use one of these.")
        if numbers[0] is not None and (item, numbers[0], kind) in seen:
            raise UserError(f"{where}: event {place + 1} is given twice (same item, time and kind); leave one out.")
        seen.add((item, numbers[0], kind))
        found.append((item, kinds.get(kind, 0), *numbers))
    return found


def _joined(shop: Interactions, rows: list[tuple[int, list[tuple]]], ids: list[str]) -> Interactions:
    """The stored events of each line's user, then the line's own; without a time these come after all before them."""
    columns: dict[str, list] = {name: [] for name in ("user", "item", "time", "event", "rating", "price", "quantity")}
    for number, (stored, added) in enumerate(rows):
        chosen = slice(*shop.offsets[stored : stored + 2]) if stored >= 0 else slice(0, 0)
        for name in columns:
            columns[name].append(getattr(shop, name)[chosen] if name != "user" else np.full(chosen.stop - chosen.start, number))
        last = int(shop.time[chosen.stop - 1]) if chosen.stop > chosen.start else 0
        for item, kind, when, *others in added:
            last = max(last, int(when)) if when is not None else last + 1
            values = (number, item, last, kind, *(np.nan if v is None else v for v in others))
            for name, value in zip(columns, values, strict=True):
                columns[name].append(np.array([value]))
    whole = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in columns.items()}
    if not len(whole["user"]):
        return shop.where(np.zeros(len(shop), bool)).renamed(ids)
    user, item, when = whole.pop("user"), whole.pop("item"), whole.pop("time")
    known = {"events": shop.events, "triples": shop.triples, "entities": shop.entities, "relations": shop.relations}
    return build(ids, shop.items, user, item, when, **whole, **known)
