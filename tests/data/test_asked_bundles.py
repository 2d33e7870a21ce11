"""What bundles are asked for: lines as they are meant, and mistakes named by file and line."""

import json

import bundle_shop
import pytest

from rgjax.data import asked_bundles
from rgjax.errors import UserError

SHOP, _ = bundle_shop.grouped(8)


def _read(tmp_path, *lines, need=""):
    path = tmp_path / "asked.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return asked_bundles.read(str(path), SHOP, need)


def test_lines_are_read_as_numbers(tmp_path):
    found = _read(tmp_path, {"items": ["i4", "i0"], "user": "u2"}, "", {"intent": "a gift"}, {"items": [], "user": "u0", "intent": None})
    assert [(one.items.tolist(), one.user, one.intent) for one in found] == [([4, 0], 2, ""), ([], asked_bundles.NOBODY, "a gift"), ([], 0, "")]
    assert found[1].where.endswith("asked.jsonl, line 3")


@pytest.mark.parametrize(
    "line, need, said",
    [
        ({"items": ["i0", "i99"]}, "", "line 2: the catalogue has no item 'i99'"),
        ({"items": ["i0", "i0"]}, "", "line 2: item 'i0' is named twice"),
        ({"user": "nobody"}, "", "line 2: the shop knows no user 'nobody'"),
        ({"user": ""}, "", "line 2: the shop knows no user ''"),
        ({"items": "i0"}, "", 'line 2: "items" has to be a list of ids'),
        ({"user": ["u0"]}, "", 'line 2: "items" has to be a list of ids'),
        ({"intent": 3}, "", 'line 2: "items" has to be a list of ids'),
        ({"item": ["i0"]}, "", 'line 2 has to be an object with some of "items"'),
        ([], "", 'line 2 has to be an object with some of "items"'),
        ({}, "", 'line 2 has to be an object with some of "items"'),
        ({"items": [], "intent": ""}, "", "line 2 names no items, user or intent"),
        ({"user": "u0"}, "items", "line 2 names no items"),
        ({"items": ["i1"]}, "user", "line 2 names no user"),
        ("{", "", "line 2: it is not JSON"),
    ],
)
def test_mistakes_are_named(tmp_path, line, need, said):
    with pytest.raises(UserError) as error:
        _read(tmp_path, {"items": ["i0"], "user": "u0"}, line, need=need)
    assert said in str(error.value)


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        asked_bundles.read(str(tmp_path / "none.jsonl"), SHOP, "")
    with pytest.raises(UserError, match="has no line"):
        _read(tmp_path)
