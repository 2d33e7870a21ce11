"""What bundles are asked for: a file of sets, users and texts."""

from __future__ import annotations

import dataclasses

import numpy as np

from rgjax.data.bundles import NOBODY
from rgjax.data.interactions import Interactions
from rgjax.data.readers import jsonl
from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class AskedBundle:
    """One line: item numbers, the user's number (or NOBODY), and the text that says what the bundle is for; `where` names the line."""

    items: np.ndarray
    user: int
    intent: str
    where: str


def read(path: str, shop: Interactions, need: str) -> list[AskedBundle]:
    """Reads JSON lines: {"items": [ID, ...], "user": ID, "intent": TEXT}, each left out where unknown; `need` names one that every line must have.

    `need` '' is content with any. Raises UserError naming the first line that is malformed, names an unknown item or user, or an item twice.
    """
    users, found = {name: u for u, name in enumerate(shop.users)}, []
    for where, line in jsonl.asked(path, 'bundles, with "items", "user" or "intent"'):
        found.append(_asked(line, shop, users, where))
        named = {"items": len(found[-1].items), "user": found[-1].user != NOBODY, "intent": found[-1].intent}
        if (need and not named[need]) or not any(named.values()):
            raise UserError(f"{where} names no {need or 'items, user or intent'}, without which nothing can be offered; add it.")
    return found


def _asked(line: object, shop: Interactions, users: dict[str, int], where: str) -> AskedBundle:
    if type(line) is not dict or not set(line) <= {"items", "user", "intent"} or not line:
        raise UserError(f'{where} has to be an object with some of "items", "user" and "intent"; mend it.')
    items, user, intent = line.get("items") or [], line.get("user"), line.get("intent") or ""
    if type(items) is not list or type(intent) is not str or not isinstance(user, (str, int, type(None))):
        raise UserError(f'{where}: "items" has to be a list of ids, "user" an id and "intent" a text; mend it.')
    numbers = []
    for name in items:
        item = shop.items.index.get(str(name))
        if item is None:
            raise UserError(f"{where}: the catalogue has no item '{name}'; leave it out.")
        if item in numbers:
            raise UserError(f"{where}: item '{name}' is named twice; leave one out.")
        numbers.append(item)
    if user is not None and str(user) not in users:
        raise UserError(f"{where}: the shop knows no user '{user}'; leave it out, and name items or an intent.")
    return AskedBundle(np.array(numbers, int), NOBODY if user is None else users[str(user)], intent, where)
