"""Layout 'bundle_intent': bundles that people found in shopping sessions, each with the intent they wrote down.

The folder of one domain (electronic/, clothing/) holds, comma-separated with a header row: item_titles (item, title), user_item (user,
item, time), bundle_item (bundle, item), bundle_intent (bundle, intent), user_bundle (user, bundle, time), and optionally
item_categories (item, '[[A,B],[C]]': paths of unquoted names).

user_item repeats every item of every user_bundle row, so a quarter of it are duplicates, which are dropped, and a held-out bundle can be
read off it: `rgjax.data.bundles.without_bundles` takes those events out.
"""

from __future__ import annotations

import pathlib

import numpy as np

from rgjax.data import bundles as bundles_lib
from rgjax.data.interactions import Catalogue, build
from rgjax.data.readers.columns import read_table
from rgjax.data.shops.common import Found, Options, distinct, moment, refuse_future
from rgjax.errors import UserError


def load(folder: pathlib.Path, told: Options) -> Found:
    """Raises UserError naming the file, the column or the row that is missing or malformed."""
    titles = {row[0]: row[1] for _, row in _rows(folder, "item_titles", 2)}
    paths = {row[0]: parse_paths(row[1]) for _, row in _rows(folder, "item_categories", 2)} if _file(folder, "item_categories").is_file() else {}
    items = Catalogue(list(titles), list(titles.values()), [_attributes(paths.get(item, [])) for item in titles])
    events = list(_rows(folder, "user_item", 3))
    users = {name: n for n, name in enumerate(dict.fromkeys(row[0] for _, row in events))}
    path = _file(folder, "user_item")
    user = np.array([users[row[0]] for _, row in events], np.int32)
    item = np.array([_number(items.index, row[1], "item", path, number) for number, row in events], np.int32)
    time = np.array([moment(row[2], path, number) for number, row in events], np.int64)
    refuse_future(time, f"{path}, row {{row}}", told)
    kept = distinct([user, item, time], path, told)
    data = build(list(users), items, user[kept], item[kept], time[kept], events=("purchase",), profiles=[{} for _ in users])
    return Found(data, _bundles(folder, items, users), {"duplicate": int((~kept).sum())})


def parse_paths(text: str) -> list[list[str]]:
    """The paths of '[[A,B C],[D, E,F]]': [['A', 'B C'], ['D, E', 'F']]; a comma before a space belongs to a name."""
    paths = text.strip().removeprefix("[[").removesuffix("]]").split("],[")
    marked = (path.replace(", ", "\0") for path in paths)
    return [names for path in marked if (names := [name.replace("\0", ", ").strip() for name in path.split(",") if name.strip()])]


def _attributes(paths: list[list[str]]) -> dict:
    """The last name of each path, and the whole paths."""
    if not paths:
        return {}
    return {"category": list(dict.fromkeys(path[-1] for path in paths)), "path": [" > ".join(path) for path in paths]}


def _bundles(folder: pathlib.Path, items: Catalogue, users: dict[str, int]) -> bundles_lib.Bundles:
    intents = {row[0]: row[1] for _, row in _rows(folder, "bundle_intent", 2)}
    index = {name: n for n, name in enumerate(intents)}
    path = _file(folder, "bundle_item")
    rows = [
        (_number(index, row[0], "bundle", path, number), _number(items.index, row[1], "item", path, number))
        for number, row in _rows(folder, "bundle_item", 2)
    ]
    path = _file(folder, "user_bundle")
    whose = [
        (_number(users, row[0], "user", path, number), _number(index, row[1], "bundle", path, number), moment(row[2], path, number))
        for number, row in _rows(folder, "user_bundle", 3)
    ]
    bundle, item = np.array(rows).T
    pairs = np.array(whose, np.int64).reshape(-1, 3)
    return bundles_lib.build(list(intents), bundle, item, len(items), list(intents.values()), pairs[:, :2], pairs[:, 2])


def _file(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / f"{name}.csv"


def _rows(folder: pathlib.Path, name: str, width: int):
    """(row number, the first `width` cells as text, '' for empty ones); raises UserError where the file is missing, short or empty."""
    path = _file(folder, name)
    if not path.is_file():
        raise UserError(f"{path} is missing; give the folder of one domain, which holds item_titles.csv, user_item.csv and the bundles.")
    found = False
    for number, row in read_table(path, ()):
        if len(row) < width:
            raise UserError(f"{path} has {len(row)} column(s) where {width} are needed; copy it again.")
        found = True
        yield number, ["" if cell is None else cell.strip() for cell in list(row.values())[:width]]
    if not found:
        raise UserError(f"{path} is empty; copy it again.")


def _number(index: dict[str, int], name: str, kind: str, path: pathlib.Path, number: int) -> int:
    if name not in index:
        known = {"item": "item_titles.csv", "bundle": "bundle_intent.csv", "user": "user_item.csv"}[kind]
        raise UserError(f"{path}, row {number}: {kind} '{name}' is not in {known}; add it there or drop the row.")
    return index[name]
