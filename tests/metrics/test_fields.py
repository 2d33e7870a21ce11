from rgjax.metrics import fields


def test_values_are_flat_distinct_and_say_something():
    item = {"attributes": {"a": ["x", "y", None, ""], "b": "x", "c": 3, "d": True, "e": 0}}
    assert fields.values(item) == ["x", "y", "3", "0"]
    assert fields.pairs(item) == [("a", "x"), ("a", "y"), ("b", "x"), ("c", "3"), ("e", "0")]


def test_missing_fields_are_empty():
    for nothing in ({}, {"item": None, "history": None, "reason": None}, {"item": {"title": None, "attributes": None}}):
        assert fields.item_title(nothing) == "" and fields.history_titles(nothing) == [] and fields.reason(nothing) == ""
        assert fields.values(nothing.get("item")) == []


def test_history_titles_keep_their_order_once_each():
    assert fields.history_titles({"history": [{"title": "b"}, {"item": "i"}, {"title": "a"}, {"title": "b"}]}) == ["b", "a"]
