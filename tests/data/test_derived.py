"""Codes derived by words: the rule against a count by hand, and its measure against labels."""

import json

import pytest

from rgjax.config import PrepareConfig
from rgjax.data import derived_words
from rgjax.data.dataset import Dataset
from rgjax.data.derived import Agreement, WordCodes
from rgjax.data.prepare import prepare
from rgjax.errors import UserError

LISTS = {"topic": {"price": ["cheap", "便宜"], "design": ["look", "外观", "art"]}, "tone": {"warm": ["love"]}}


@pytest.mark.parametrize(
    "reason, codes",
    [
        ("You love its look, and it is cheap.", {"topic": "price", "tone": "warm"}),  # one word of each: the first
        ("A look of art, and cheap.", {"topic": "design"}),
        ("A party for the artist.", {}),  # 'art' is no word of it
        ("外观好看，很便宜，有art的感觉", {"topic": "design"}),
        ("CHEAP cheap cheap looks", {"topic": "price"}),
    ],
)
def test_most_words_win_and_none_gives_no_code(reason, codes):
    assert WordCodes(LISTS).of(reason) == codes


def test_the_measure_counts_examples_with_codes_of_their_own():
    found = Agreement(WordCodes(LISTS))
    for derived, own in [("price", "price"), ("price", "design"), ("", "design"), ("design", ""), ("", "")]:
        found.add({"topic": derived} if derived else {}, {"topic": own} if own else {})
    topic = found.to_json()["topic"]
    assert topic["measured"] == {"labelled": 3, "coverage": 0.6667, "accuracy": 0.5}
    assert topic["given"] == {"price": 0, "design": 1} and (topic["none"], topic["kept_own"]) == (1, 3)
    assert found.to_json()["tone"]["measured"] == {"labelled": 0, "coverage": None, "accuracy": None}


def test_a_value_may_be_called_as_a_figure_is():
    names = ["right", "judged", "labelled", "none", "kept_own"]
    found = Agreement(WordCodes({"topic": {name: [name] for name in names}}))
    for name in names:
        found.add({"topic": name}, {})
    found.add({"topic": "judged"}, {"topic": "right"})
    topic = found.to_json()["topic"]
    assert topic["given"] == dict.fromkeys(names, 1) and (topic["none"], topic["kept_own"]) == (0, 1)
    assert topic["measured"] == {"labelled": 1, "coverage": 1.0, "accuracy": 0.0}


def test_examples_get_a_code_and_keep_their_own(tmp_path):
    rows = [{"item": {"id": str(i), "title": f"Thing {i}"}, "reason": f"It is cheap, number {i}."} for i in range(30)]
    rows[3]["control"] = {"topic": "design"}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "lists.json").write_text(json.dumps(LISTS))
    options = {"source": str(tmp_path / "in.jsonl"), "controls": "topic=price|design", "derive_words": str(tmp_path / "lists.json")}
    prepare(PrepareConfig(**options, output=str(tmp_path / "out"), vocab_size=400, slots=0, split_by="item"))
    data = Dataset.open(tmp_path / "out")
    examples = [e for split in ("train", "val", "test") for e in data.examples(split)]
    assert {e["item"]["id"]: e["control"]["topic"] for e in examples} == {str(i): "design" if i == 3 else "price" for i in range(30)}
    assert data.controls == {"topic": ["price", "design"], "tone": ["warm"]}
    assert data.manifest["derived_controls"]["topic"]["measured"] == {"labelled": 1, "coverage": 1.0, "accuracy": 0.0}
    assert data.manifest["config"]["derive_words"] == "lists.json"


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is no readable JSON file"),
        ('{"topic": ["a"]}', "is not of the form"),
        ('{"topic": {"price": []}}', "is not of the form"),
        ('{"to pic": {"price": ["a"]}}', "is not of the form"),
        ('{"topic": {"cost": ["a"]}}', "gives 'topic' the value 'cost', and the data declare price"),
    ],
)
def test_malformed_or_contradicting_lists_are_refused(text, message, tmp_path):
    path = tmp_path / "lists.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        WordCodes.open(str(path), {"topic": ["price"]})


def test_no_built_in_word_stands_for_two_values():
    for values in derived_words.LISTS.values():
        every = [word for listed in values.values() for word in listed]
        assert len(every) == len(set(every))
