"""Layout 'tables': a folder with items, users, interactions and reasons, each as .csv, .jsonl or .parquet.

| table        | needed columns                        | known columns                      | any other column becomes          |
|--------------|---------------------------------------|------------------------------------|-----------------------------------|
| items        | item, title                           | description                        | an attribute of the item          |
| users        | user                (table optional)  | profile                            | an attribute of the user          |
| interactions | user, item          (table optional)  | event, rating, time                | an attribute of the event         |
| reasons      | item, reason                          | user, time, declared control codes | an error: declare it (--controls) |

A reason's history is its user's interactions before the reason's time (all of them where no time is given), oldest first, without
the item itself. Times are numbers (seconds) or ISO dates. Values such as "a|b" in a text column become the list ["a", "b"].
Tables are streamed into a temporary SQLite file beside the output and joined there, so memory stays at its page cache (64 MB)
and a cache of 20,000 items. A million interactions and 100,000 reasons take about 65 s and 280 MB.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import sqlite3
from collections.abc import Iterator

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, cells, in_chunks
from rgjax.data.readers.columns import read_table, table_path
from rgjax.data.records import Controls, RecordError, Row, encode
from rgjax.errors import UserError

_ITEM, _USER = ("item", "title", "description"), ("user", "profile")
_EVENT, _REASON = ("user", "item", "event", "rating", "time"), ("user", "item", "reason", "time")
_LONGEST_HISTORY = 500  # latest events of a user that are read; more than any model shows
_CACHED_ITEMS = 20_000
_NO_TIME = -1e300  # stands for an unknown time in the key, which cannot be null


def open_source(config: PrepareConfig, controls: Controls, scratch: pathlib.Path) -> Source:
    """Joins the tables; raises UserError when a table or a column is missing, or an item is unknown."""
    folder = pathlib.Path(config.source)
    if not folder.is_dir():
        raise UserError(f"--source={folder} is not a folder; give the one that holds items, interactions and reasons.")
    paths = {
        name: table_path(folder, name, name in ("items", "reasons")) for name in ("items", "users", "interactions", "reasons")
    }
    base = _open(scratch / "tables.sqlite")
    _load_things(base, "items", paths["items"], _ITEM, ("item", "title"))
    if paths["users"]:
        _load_things(base, "users", paths["users"], _USER, ("user",))
    if paths["interactions"]:
        _load_events(base, paths["interactions"])
    _check_reason_columns(paths["reasons"], controls)
    return Source(in_chunks(_rows(base, paths["reasons"], controls)), frozenset(), 0, controls)


def _open(path: pathlib.Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, isolation_level=None)
    # The file is scratch: no journal, no waiting for the disk. The cache is the bound on memory.
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "temp_store=FILE"):
        base.execute(f"PRAGMA {pragma}")
    base.execute("CREATE TABLE items (id TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID")
    base.execute("CREATE TABLE users (id TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID")
    base.execute("CREATE TABLE unsorted (user TEXT, time REAL, place INTEGER, item TEXT, json TEXT)")
    base.execute(
        "CREATE TABLE events (user TEXT, time REAL, place INTEGER, item TEXT, json TEXT, PRIMARY KEY (user, time, place)) WITHOUT ROWID"
    )
    return base


def _load_things(base: sqlite3.Connection, table: str, path: pathlib.Path, known: tuple, needed: tuple) -> None:
    """Items or users: id -> the example's object as JSON."""
    key = known[0]

    def things():
        for number, row in read_table(path, needed):
            name = cells.name_of(row, key, path, number)
            thing = {"id": name} | {k: str(row[k]) for k in known[1:] if row.get(k) is not None}
            attributes = {k: cells.attribute(v) for k, v in row.items() if k not in known and v is not None}
            yield name, encode(thing | ({"attributes": attributes} if attributes else {}))

    _insert(base, f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", things())


def _load_events(base: sqlite3.Connection, path: pathlib.Path) -> None:
    """Interactions, stored by user and time, so that a history is one stretch of the file."""

    def events():
        for number, row in read_table(path, ("user", "item")):
            time, item = cells.seconds(row.get("time"), path, number), cells.name_of(row, "item", path, number)
            event = {"item": item, "event": cells.text(row.get("event")), "rating": cells.number(row.get("rating")), "time": time}
            attributes = {k: cells.attribute(v) for k, v in row.items() if k not in _EVENT and v is not None}
            event = {k: v for k, v in event.items() if v is not None} | ({"attributes": attributes} if attributes else {})
            yield cells.name_of(row, "user", path, number), _NO_TIME if time is None else time, number, item, encode(event)

    _insert(base, "INSERT INTO unsorted VALUES (?, ?, ?, ?, ?)", events())
    _insert(base, "INSERT INTO events SELECT * FROM unsorted ORDER BY user, time, place")
    base.execute("DROP TABLE unsorted")


def _insert(base: sqlite3.Connection, statement: str, rows: Iterator[tuple] | None = None) -> None:
    base.execute("BEGIN")
    try:
        base.execute(statement) if rows is None else base.executemany(statement, rows)
    except sqlite3.OperationalError as error:
        raise UserError(
            f"The tables do not fit beside --output ({error}); free some space or put --output on a larger disk."
        ) from None
    base.execute("COMMIT")


def _check_reason_columns(path: pathlib.Path, controls: Controls) -> None:
    for _, row in read_table(path, ("item", "reason")):
        surplus = [name for name in row if name not in _REASON and name not in controls]
        if surplus:
            raise UserError(
                f"{path.name} has the column '{surplus[0]}', which is no declared control code; add it to --controls or drop it."
            )
        return


def _rows(base: sqlite3.Connection, path: pathlib.Path, controls: Controls) -> Iterator[Row]:
    join = _Join(base)
    for number, row in read_table(path, ("item", "reason")):
        example, problem = None, None
        try:
            example = join.example(row, controls, cells.seconds(row.get("time"), path, number))
        except RecordError as error:
            problem = error
        yield Row(example, f"{path.name}, row {number}", None, 0, problem)
    base.close()


class _Join:
    """Looks up what belongs to a reason."""

    def __init__(self, base: sqlite3.Connection):
        self.base = base
        self.item = functools.lru_cache(maxsize=_CACHED_ITEMS)(lambda name: self._thing("items", name))

    def _thing(self, table: str, name: str) -> dict | None:
        found = self.base.execute(f"SELECT json FROM {table} WHERE id = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def example(self, row: dict, controls: Controls, time: float | None) -> dict:
        """The example of one row of the reasons table; raises RecordError when its item is unknown."""
        name, user = str(row["item"] or ""), str(row.get("user") or "")
        item = self.item(name)
        if item is None:
            raise RecordError(f"item '{name}' is not in the items table", "unknown item")
        example = {"item": item, "reason": row["reason"], "control": {n: row[n] for n in controls if row.get(n) is not None}}
        if user:
            example["user"] = self._thing("users", user) or {"id": user}
            example["history"] = self.history(user, name, time)
        return example

    def history(self, user: str, candidate: str, time: float | None) -> list[dict]:
        """The user's events before `time`, oldest first; where it is given, events without a time are left out."""
        bounds = (user, -math.inf, math.inf) if time is None else (user, _NO_TIME, time)
        latest = self.base.execute(
            "SELECT item, json FROM events WHERE user = ? AND time > ? AND time < ? ORDER BY time DESC, place DESC "
            f"LIMIT {_LONGEST_HISTORY}",
            bounds,
        ).fetchall()
        history = []
        for name, text in reversed(latest):
            if name == candidate:
                continue
            event, item = json.loads(text), self.item(name) or {}
            if "title" in item:
                event["title"] = item["title"]
            if "attributes" in item:
                event["attributes"] = item["attributes"] | event.get("attributes", {})
            history.append(event)
        return history
