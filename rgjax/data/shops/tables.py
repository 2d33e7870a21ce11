"""Layout 'shop': a folder of a shop's own tables, each as .csv, .jsonl or .parquet.

| table        | needed columns                         | known columns                   | any other column becomes |
|--------------|----------------------------------------|---------------------------------|--------------------------|
| items        | item                                   | title                           | an attribute of the item |
| users        | user                  (table optional) |                                 | an attribute of the user |
| interactions | user, item, time                       | event, rating, price, quantity, basket | ignored           |
| entities     | entity                (table optional) |                                 | ignored                  |
| triples      | head, relation, tail  (table optional) |                                 | ignored                  |
| bundles      | bundle, item          (table optional) | intent                          | ignored                  |
| user_bundles | user, bundle          (table optional) | time                            | ignored                  |

Columns are those of the layout 'tables' (rgjax/data/readers/tables.py): times are seconds or ISO dates, "a|b" is a list. An interaction
with an empty user belongs to nobody known: demand, but no history. Either end of a triple is an item or an entity. Where there is a
table of entities it lists them all; else any tail may be one, but a head that is neither an item nor some triple's tail is an error,
since it is most likely a misspelt item. A bundle's intent is the first one its rows give.
"""

from __future__ import annotations

import pathlib

import numpy as np

from rgjax.data import bundles as bundles_lib
from rgjax.data.interactions import Catalogue, Interactions, build
from rgjax.data.readers import cells
from rgjax.data.readers.columns import read_table, table_path
from rgjax.data.shops.common import Found, Options, distinct, moment, refuse_future
from rgjax.errors import UserError

_MOST_EVENTS = 127  # kinds of events; their numbers are int8


def load(folder: pathlib.Path, told: Options) -> Found:
    """Raises UserError naming the file, the column or the row that is missing or malformed."""
    if not folder.is_dir():
        raise UserError(f"--source={folder} is not a folder; give the one that holds items and interactions.")
    items = _items(table_path(folder, "items", True))
    profiles = _profiles(table_path(folder, "users", False))
    facts = _triples(table_path(folder, "triples", False), table_path(folder, "entities", False), items)
    data, repeated = _events(table_path(folder, "interactions", True), items, profiles, told, facts)
    bundles = _bundles(folder, table_path(folder, "bundles", False), items, data.users)
    return Found(data, bundles, {"duplicate": repeated})


def _items(path: pathlib.Path) -> Catalogue:
    titles, attributes = {}, []
    for number, row in read_table(path, ("item",)):
        name = cells.name_of(row, "item", path, number)
        if name in titles:
            raise UserError(f"{path.name}, row {number}: item '{name}' was there before; keep one of the rows.")
        titles[name] = cells.text(row.get("title")) or ""
        attributes.append({k: cells.attribute(v) for k, v in row.items() if k not in ("item", "title") and v is not None})
    if not titles:
        raise UserError(f"{path} is empty; it needs one row per item.")
    return Catalogue(list(titles), list(titles.values()), attributes)


def _profiles(path: pathlib.Path | None) -> dict[str, dict]:
    rows = read_table(path, ("user",)) if path else ()
    return {
        cells.name_of(row, "user", path, number): {k: cells.attribute(v) for k, v in row.items() if k != "user" and v is not None}
        for number, row in rows
    }


def _number(index: dict[str, int], name: str, kind: str, table: str, path: pathlib.Path, number: int) -> int:
    if name not in index:
        raise UserError(f"{path.name}, row {number}: {kind} '{name}' is not in the table of {table}; add it there or drop the row.")
    return index[name]


def _events(path: pathlib.Path, items: Catalogue, profiles: dict, told: Options, facts: dict) -> tuple[Interactions, int]:
    """(the interactions, how many repeated ones were dropped)."""
    users, events, baskets = {name: n for n, name in enumerate(profiles)}, {}, {}
    rows, others, at = [], [], {}
    for number, row in read_table(path, ("user", "item", "time")):
        user = users.setdefault((cells.text(row["user"]) or "").strip(), len(users))
        item = _number(items.index, cells.name_of(row, "item", path, number), "item", "items", path, number)
        time = moment(row["time"], path, number)
        event = events.setdefault(cells.text(row.get("event")) or "interaction", len(events))
        if event >= _MOST_EVENTS:
            raise UserError(f"{path.name}, row {number}: more than {_MOST_EVENTS} kinds of events; the column event is to name a kind.")
        basket = row.get("basket")
        basket = -1 if basket is None else baskets.setdefault((user, str(basket)), len(baskets))
        at[len(rows)] = number
        rows.append((user, item, time, event, basket))
        others.append([cells.quantity(row, name, path, number) for name in ("rating", "price", "quantity")])
    if not rows:
        raise UserError(f"{path} is empty; it needs one row per interaction.")
    user, item, time, event, basket = np.array(rows, np.int64).T
    rating, price, quantity = np.array(others, float).T
    late = int(np.argmax(time > told.now))
    refuse_future(time[late : late + 1], f"{path.name}, row {at[late]}", told)
    # Two unknown shoppers may buy the same thing in the same second, so their events are told apart by order only.
    known = user != users.get("", -1)
    kept = distinct([user, item, time, event, np.where(known, 0, np.arange(len(user)))], path, told)
    ones = lambda values: values[kept]
    data = build(
        list(users), items, ones(user), ones(item), ones(time), event=ones(event), rating=ones(rating), price=ones(price),
        quantity=ones(quantity), basket=ones(basket) if baskets else None, events=tuple(events),
        profiles=[profiles.get(name, {}) for name in users], **facts,
    )  # fmt: skip
    return data, int((~kept).sum())


def _triples(path: pathlib.Path | None, listed: pathlib.Path | None, items: Catalogue) -> dict:
    """`triples`, `entities` and `relations` of Interactions."""
    if path is None:
        return {}
    rows = [
        (number, *(cells.name_of(row, name, path, number) for name in ("head", "relation", "tail")))
        for number, row in read_table(path, ("head", "relation", "tail"))
    ]
    if listed:
        names = {cells.name_of(row, "entity", listed, number): None for number, row in read_table(listed, ("entity",))}
    else:
        names = {tail: None for *_, tail in rows}
    index = {name: len(items) + n for n, name in enumerate(name for name in names if name not in items.index)} | items.index
    relations, triples = {}, []
    for number, head, relation, tail in rows:
        lost = next((end for end in (head, tail) if end not in index), None)
        if lost is not None:
            rule = f"is in neither items nor {listed.name}" if listed else "is neither an item nor the tail of a triple"
            raise UserError(f"{path.name}, row {number}: entity '{lost}' {rule}; mend its name or add it.")
        triples.append((index[head], relations.setdefault(relation, len(relations)), index[tail]))
    entities = [name for name in names if name not in items.index]
    return {"triples": np.array(triples, np.int32).reshape(-1, 3), "entities": entities, "relations": list(relations)}


def _bundles(folder: pathlib.Path, path: pathlib.Path | None, items: Catalogue, users: list[str]) -> bundles_lib.Bundles | None:
    if path is None:
        return None
    index, intents, rows = {}, [], []
    for number, row in read_table(path, ("bundle", "item")):
        name = cells.name_of(row, "bundle", path, number)
        bundle = index.setdefault(name, len(index))
        if bundle == len(intents):
            intents.append("")
        intents[bundle] = intents[bundle] or cells.text(row.get("intent")) or ""
        rows.append((bundle, _number(items.index, cells.name_of(row, "item", path, number), "item", "items", path, number)))
    if not rows:
        raise UserError(f"{path} is empty; fill it or take it away.")
    pairs, times, owners = [], [], table_path(folder, "user_bundles", False)
    known = {name: n for n, name in enumerate(users)}
    for number, row in read_table(owners, ("user", "bundle")) if owners else ():
        user = _number(known, cells.name_of(row, "user", owners, number), "user", "interactions", owners, number)
        pairs.append((user, _number(index, cells.name_of(row, "bundle", owners, number), "bundle", "bundles", owners, number)))
        times.append(0 if row.get("time") is None else moment(row["time"], owners, number))
    return bundles_lib.build(list(index), *np.array(rows).T, len(items), intents, pairs, times)
