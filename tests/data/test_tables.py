"""Shop tables: the join against a plain Python one, the three file forms, and missing columns."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgjax.config import PrepareConfig
from rgjax.data.readers import open_source
from rgjax.errors import UserError

ITEMS = [{"item": f"i{i}", "title": f"Thing, {i}", "brand": "b", "tags": "x|y" if i % 2 else "z"} for i in range(6)]
USERS = [{"user": "u0", "profile": "likes tea", "city": "Graz"}]
EVENTS = [{"user": f"u{i % 2}", "item": f"i{i * 5 % 6}", "event": "buy", "rating": i, "time": 100 - i} for i in range(12)]
REASONS = [
    {"user": "u0", "item": "i2", "reason": "because of tea", "time": 96, "style": "a"},
    {"user": "u1", "item": "i5", "reason": "because, simply", "time": None, "style": "b"},
    {"user": None, "item": "i1", "reason": "good for all", "time": None, "style": None},
]
TABLES = {"items": ITEMS, "users": USERS, "interactions": EVENTS, "reasons": REASONS}

STYLE = {"style": ["a", "b"]}


def write(folder, form, tables=TABLES):
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        path = folder / f"{name}.{form}"
        if form == "jsonl":
            path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        elif form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            with open(path, "w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
    return folder


def read(folder, scratch, controls=STYLE):
    scratch.mkdir(exist_ok=True)
    (scratch / "tables.sqlite").unlink(missing_ok=True)
    source = open_source(PrepareConfig(layout="tables", source=str(folder)), controls, scratch)
    return list(source.rows)


def truth(reason):
    """Item ids of the history, joined by hand."""
    events = [e for e in EVENTS if e["user"] == reason["user"] and (reason["time"] is None or e["time"] < reason["time"])]
    return [e["item"] for e in sorted(events, key=lambda e: e["time"]) if e["item"] != reason["item"]]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_join_equals_the_one_by_hand(tmp_path, form):
    rows = read(write(tmp_path / "shop", form), tmp_path / "scratch")
    assert not any(r.problem for r in rows)
    for row, reason in zip(rows, REASONS, strict=True):
        example = row.example
        assert [e["item"] for e in example.get("history", [])] == (truth(reason) if reason["user"] else [])
        assert example["item"]["title"] == f"Thing, {reason['item'][1:]}" and example["reason"] == reason["reason"]
        assert example["control"] == ({"style": reason["style"]} if reason["style"] else {})
    first = rows[0].example
    assert first["user"] == {"id": "u0", "profile": "likes tea", "attributes": {"city": "Graz"}}
    assert first["history"][0]["attributes"] == {
        "brand": "b",
        "tags": ["x", "y"] if int(first["history"][0]["item"][1]) % 2 else "z",
    }
    assert rows[1].example["user"] == {"id": "u1"}


def test_dates_order_like_seconds(tmp_path):
    events = [{"user": "u", "item": f"i{i}", "time": f"2024-01-0{5 - i}"} for i in range(4)]
    reasons = [{"user": "u", "item": "i5", "reason": "fine", "time": "2024-01-05T00:00:00"}]
    folder = write(tmp_path / "shop", "csv", {"items": ITEMS, "interactions": events, "reasons": reasons})
    (row,) = read(folder, tmp_path / "scratch")
    assert [e["item"] for e in row.example["history"]] == ["i3", "i2", "i1"]
    assert row.example["history"][0]["time"] == 1704153600  # date -u -d 2024-01-02 +%s


def test_an_unknown_item_is_one_bad_row(tmp_path):
    folder = write(tmp_path / "shop", "csv", TABLES | {"reasons": REASONS + [REASONS[0] | {"item": "nope"}]})
    assert [str(r.problem) for r in read(folder, tmp_path / "scratch") if r.problem] == ["item 'nope' is not in the items table"]


def test_events_without_a_time_count_only_where_the_reason_has_none(tmp_path):
    events = [{"user": "u", "item": "i1", "time": None}, {"user": "u", "item": "i2", "time": 5}]
    reasons = [
        {"user": "u", "item": "i5", "reason": "fine", "time": 9},
        {"user": "u", "item": "i5", "reason": "good", "time": None},
    ]
    folder = write(tmp_path / "shop", "jsonl", {"items": ITEMS, "interactions": events, "reasons": reasons})
    histories = [[e["item"] for e in r.example["history"]] for r in read(folder, tmp_path / "scratch")]
    assert histories == [["i2"], ["i1", "i2"]]


@pytest.mark.parametrize(
    "tables, controls, named",
    [
        ({"reasons": [{"item": "i1", "text": "x"}]}, {}, "reasons.csv lacks the column 'reason'; it has item, text"),
        ({"items": [{"id": "i1", "title": "x"}]}, {}, "items.csv lacks the column 'item'"),
        ({"interactions": [{"user": "u", "product": "x"}]}, {}, "interactions.csv lacks the column 'item'"),
        ({"interactions": [{"user": "u", "item": "i", "time": "noon"}]}, {}, "interactions.csv, row 1: time 'noon'"),
        ({}, {}, "column 'style', which is no declared control code"),
    ],
)
def test_bad_tables_are_named(tmp_path, tables, controls, named):
    folder = write(tmp_path / "shop", "csv", TABLES | tables)
    with pytest.raises(UserError) as caught:
        read(folder, tmp_path / "scratch", controls)
    assert named in str(caught.value)


def test_unreadable_tables_are_named(tmp_path):
    folder = write(tmp_path / "shop", "csv")
    for name, raw, named in [
        ("items.csv", b"item,title\ni1,\xff\xfe\n", "is not UTF-8"),
        ("items.csv", b"item,title\ni1,a,b\n", "line 2 has 3 cells instead of 2"),
        ("items.parquet", b"PAR1 not really", "both items.csv and items.parquet"),
    ]:
        (folder / name).write_bytes(raw)
        with pytest.raises(UserError, match=named):
            read(folder, tmp_path / "scratch")
    (folder / "items.csv").unlink()
    with pytest.raises(UserError, match="items.parquet is not a readable Parquet file"):
        read(folder, tmp_path / "scratch")
    (folder / "items.parquet").unlink()
    with pytest.raises(UserError, match="holds no items.csv"):
        read(folder, tmp_path / "scratch")
