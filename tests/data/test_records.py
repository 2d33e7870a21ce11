"""The check of an example names the faulty field."""

import pytest

from rgjax.data import records
from rgjax.errors import UserError

GOOD = {
    "user": {"id": "u7", "profile": "reads", "attributes": {"age": 34, "tags": ["a", "b"]}},
    "history": [
        {"item": "i3", "title": "Fargo", "attributes": {"genre": ["war"]}, "event": "buy", "rating": 4.5, "time": 1690000000}
    ],
    "item": {"id": "i9", "title": "Heat", "attributes": {}, "description": "a film", "vectors": {"image": [0.1, 2]}},
    "control": {"style": "concise", "max_words": 30},
    "reason": "You liked Fargo.",
}
CONTROLS = {"style": ["concise", "detailed"], "max_words": ["30"]}


def test_the_documented_example_passes():
    records.check(GOOD, CONTROLS)
    records.check({"item": {"title": "Heat"}, "require": ["war"]}, {}, require_reason=False)
    records.check({"item": {"id": 4}, "history": [{"item": 3}], "reason": "x"}, None)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"item": None}, "'item' is missing"),
        ({"item": {}}, "'item' says nothing"),
        ({"item": {"title": 3}}, "'item.title' must be text, not a number"),
        ({"item": {"name": "x"}}, "'item.name' is not a known field; put it under item.attributes"),
        ({"item": {"id": "a", "vectors": {"image": [1, "x"]}}}, "'item.vectors.image'"),
        ({"item": {"id": "a", "attributes": {"k": {"deep": 1}}}}, "'item.attributes.k'"),
        ({"user": {"id": 1.5}}, "'user.id'"),
        ({"user": {"age": 3}}, "'user.age' is not a known field"),
        ({"history": {}}, "'history' must be a list"),
        ({"history": [{"item": "a"}, {"time": 3}]}, "'history[1]' has neither"),
        ({"history": [{"title": "a", "time": "now"}]}, "'history[0].time' must be a number"),
        ({"history": [{"title": "a", "rating": float("nan")}]}, "'history[0].rating'"),
        ({"history": [{"title": "a", "attributes": {"k": [[1]]}}]}, "'history[0].attributes.k'"),
        ({"histroy": []}, "'histroy' is not a known field"),
        ({"reason": "  "}, "'reason' is empty"),
        ({"reason": None}, "'reason' is missing"),
        ({"reason": 3}, "'reason' must be text"),
        ({"require": "oak"}, "'require' must be a list of words"),
        ({"require": ["oak", " "]}, "'require' must be a list of words"),
    ],
)
def test_the_faulty_field_is_named(change, named):
    with pytest.raises(records.RecordError, match=".*") as caught:
        records.check(GOOD | change, CONTROLS)
    assert named in str(caught.value)


def test_undeclared_controls_list_what_is_allowed():
    with pytest.raises(records.ControlError, match="'style=long' is not declared; allowed are concise, detailed"):
        records.check(GOOD | {"control": {"style": "long"}}, CONTROLS)
    with pytest.raises(records.ControlError, match="'tone' is not declared; declared are style, max_words"):
        records.check(GOOD | {"control": {"tone": "warm"}}, CONTROLS)


def test_controls_are_parsed():
    assert records.parse_controls("style=a|b; tone=warm") == {"style": ["a", "b"], "tone": ["warm"]}
    assert records.parse_controls("") == {}
    for bad in ("style", "style=", "=a", "style=a|", "style=a;style=b", "style=a|a"):
        with pytest.raises(UserError, match="--controls"):
            records.parse_controls(bad)
