"""Layout 'tables': a folder with items, users, interactions and reasons, each as .csv, .jsonl or .parquet.

| table        | needed columns                        | known columns                      | any other column becomes          |
|--------------|---------------------------------------|------------------------------------|-----------------------------------|
| items        | item, title                           | description                        | an attribute of the item          |
| users        | user                (table optional)  | profile                            | an attribute of the user          |
| interactions | user, item          (table optional)  | event, rating, time                | an attribute of the event         |
| reasons      | item, reason                          | user, time, declared control codes | an error: declare it (--controls) |

A reason's history is its user's interactions before the reason's time (all of them where no time is given), oldest first, without
the item itself. Times are numbers (seconds) or ISO dates. Values such as "a|b" in a text column become the list ["a", "b"].
Tables are streamed into a temporary SQLite file beside the output and joined there, so memory stays at its page cache (64 MB).
"""

from __future__ import annotations

import datetime
import json
import pathlib
import sqlite3
from collections.abc import Iterator

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, in_chunks
from rgjax.data.readers.columns import read_table, table_path
from rgjax.data.records import Controls, RecordError, Row, encode
from rgjax.errors import UserError

_ITEM, _USER = ("item", "title", "description"), ("user", "profile")
_EVENT, _REASON = ("user", "item", "event", "rating", "time"), ("user", "item", "reason", "time")
_LONGEST_HISTORY = 500  # latest events of a user that are read; more than any model shows
_BATCH = 10_000


def open_source(config: PrepareConfig, controls: Controls, scratch: pathlib.Path) -> Source:
    """Joins the tables; raises UserError when a table or a column is missing, or an item is unknown."""
    folder = pathlib.Path(config.source)
    if not folder.is_dir():
        raise UserError(f"--source={folder} is not a folder; give the one that holds items, interactions and reasons.")
    paths = {name: table_path(folder, name, name in ("items", "reasons")) for name in ("items", "users", "interactions", "reasons")}
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
    base.execute("CREATE TABLE events (user TEXT, time REAL, place INTEGER, json TEXT)")
    return base


def _load_things(base: sqlite3.Connection, table: str, path: pathlib.Path, known: tuple, needed: tuple) -> None:
    """Items or users: id -> the example's object as JSON."""
    key = known[0]

    def things():
        for number, row in read_table(path, needed):
            name = _id(row, key, path, number)
            thing = {"id": name} | {k: str(row[k]) for k in known[1:] if row.get(k) is not None}
            attributes = {k: _value(v) for k, v in row.items() if k not in known and v is not None}
            yield name, encode(thing | ({"attributes": attributes} if attributes else {}))

    _insert(base, f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", things())


def _load_events(base: sqlite3.Connection, path: pathlib.Path) -> None:
    def events():
        for number, row in read_table(path, ("user", "item")):
            time = _time(row.get("time"), path, number)
            event = {"item": _id(row, "item", path, number), "event": _text(row.get("event")), "rating": _number(row.get("rating")), "time": time}
            attributes = {k: _value(v) for k, v in row.items() if k not in _EVENT and v is not None}
            event = {k: v for k, v in event.items() if v is not None} | ({"attributes": attributes} if attributes else {})
            yield _id(row, "user", path, number), time, number, encode(event)

    _insert(base, "INSERT INTO events VALUES (?, ?, ?, ?)", events())
    base.execute("CREATE INDEX by_user ON events (user, time, place)")


def _insert(base: sqlite3.Connection, statement: str, rows: Iterator[tuple]) -> None:
    base.execute("BEGIN")
    try:
        base.executemany(statement, rows)
    except sqlite3.OperationalError as error:
        raise UserError(f"The tables do not fit beside --output ({error}); free some space or put --output on a larger disk.") from None
    base.execute("COMMIT")


def _check_reason_columns(path: pathlib.Path, controls: Controls) -> None:
    for _, row in read_table(path, ("item", "reason")):
        surplus = [name for name in row if name not in _REASON and name not in controls]
        if surplus:
            raise UserError(f"{path.name} has the column '{surplus[0]}', which is no declared control code; add it to --controls or drop it.")
        return


def _rows(base: sqlite3.Connection, path: pathlib.Path, controls: Controls) -> Iterator[Row]:
    for number, row in read_table(path, ("item", "reason")):
        where, example, problem = f"{path.name}, row {number}", None, None
        try:
            example = _example(base, row, controls, path, number)
        except RecordError as error:
            problem = error
        yield Row(example, where, None, 0, problem)
    base.close()


def _example(base: sqlite3.Connection, row: dict, controls: Controls, path: pathlib.Path, number: int) -> dict:
    item, user = str(row["item"] or ""), str(row.get("user") or "")
    found = base.execute("SELECT json FROM items WHERE id = ?", (item,)).fetchone()
    if found is None:
        raise RecordError(f"item '{item}' is not in the items table", "unknown item")
    example = {"item": json.loads(found[0]), "reason": row["reason"], "control": {n: row[n] for n in controls if row.get(n) is not None}}
    if user:
        known = base.execute("SELECT json FROM users WHERE id = ?", (user,)).fetchone()
        example["user"] = json.loads(known[0]) if known else {"id": user}
        example["history"] = _history(base, user, item, _time(row.get("time"), path, number))
    return example


def _history(base: sqlite3.Connection, user: str, item: str, time: float | None) -> list[dict]:
    before = "" if time is None else "AND time < ?"
    statement = (
        f"SELECT e.json, i.json FROM (SELECT json, time, place FROM events WHERE user = ? {before} ORDER BY time DESC, place DESC "
        f"LIMIT {_LONGEST_HISTORY}) e LEFT JOIN items i ON i.id = json_extract(e.json, '$.item') ORDER BY e.time, e.place"
    )
    history = []
    for event_json, item_json in base.execute(statement, (user,) if time is None else (user, time)):
        event = json.loads(event_json)
        if event["item"] == item:
            continue
        thing = json.loads(item_json) if item_json else {}
        if thing.get("title"):
            event["title"] = thing["title"]
        if thing.get("attributes"):
            event["attributes"] = thing["attributes"] | event.get("attributes", {})
        history.append(event)
    return history


def _id(row: dict, name: str, path: pathlib.Path, number: int) -> str:
    value = row[name]
    if value is None or not str(value).strip():
        raise UserError(f"{path.name}, row {number}: '{name}' is empty; every row needs it.")
    return str(value).strip()


def _value(value):
    """A cell as an attribute: 'a|b' is a list."""
    if isinstance(value, str) and "|" in value:
        return [part.strip() for part in value.split("|") if part.strip()]
    return value if isinstance(value, (str, int, float, bool, list)) else str(value)


def _text(value) -> str | None:
    return None if value is None else str(value)


def _number(value) -> float | int | None:
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        return float(value)
    except ValueError:
        return None


def _time(value, path: pathlib.Path, number: int) -> float | int | None:
    """Seconds since 1970 of a number or an ISO date (without a zone: UTC)."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    try:
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
        return value
    except ValueError:
        raise UserError(f"{path.name}, row {number}: time '{value}' is neither a number of seconds nor an ISO date; mend it.") from None
