"""Layouts of judgements: pairs, the place that judges lean to, and what is no pair."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import PrepareConfig
from rgjax.data.prepare import prepare
from rgjax.data.readers import open_source
from rgjax.errors import UserError

QUESTION = (
    "The history films watched by the customer are:\n1: Cool Hand Luke\nThe class of the movie is Comedy Drama.\n2: Scream\n"
    "The class of the movie is Horror Thriller.\n\nThe age of the customer is 63, the gender is male and the customer's occupation is "
    "programmer. As a recommender system, tell the customer why.\nGive reasons why the customer needs to watch this movie with the following "
    "title and class:\nDr. No.\nThe class of the movie is Action.\n\nUse ONLY the information mentioned above.\n"
)
NEWS = (
    "The history news viewed by the customer are:\n1: A storm\nThe category of the news is weather.\nThe sub category of the news is storms.\n\n"
    "As a recommender system, tell the customer why.\nGive reasons why the customer needs to watch this news with the following title and "
    "category:\nSunshine.\nThe category of the news is weather.\nThe sub category of the news is sun.\n\nUse ONLY the information.\n"
)


def asked(one, other, preferred, item="tea"):
    return {"item": {"title": item}, "reasons": [one, other], "preferred": preferred}


def opened(tmp_path, lines, layout="preferences", name="train.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_source(PrepareConfig(layout=layout, source=str(tmp_path)), {}, tmp_path)
    return source, list(source.rows)


def test_a_judgement_becomes_a_pair(tmp_path):
    source, (row,) = opened(tmp_path, [asked("good", "better", 2)])
    assert row.example == {"item": {"title": "tea"}, "reason": "better", "rejected": "good"}
    told = {"judgements": 1, "pairs": 1, "asked": 1, "first_place_won": 0.0, "shown_in_both_orders": 0, "undecided": 0}
    assert source.extras == {"preferences.json": told} and source.splits == {"train"}


def test_who_chose_the_place_chose_nothing(tmp_path):
    lines = [asked("a", "b", 2), asked("b", "a", 2), asked("c", "d", 2), asked("d", "c", 1)]
    source, rows = opened(tmp_path, [line | {"id": f"judgement {i}"} for i, line in enumerate(lines)])
    assert [row.example["reason"] for row in rows] == ["d"]
    assert source.extras["preferences.json"]["shown_in_both_orders"] == 2 and source.extras["preferences.json"]["undecided"] == 1


def test_who_was_asked_does_not_hide_the_place(tmp_path):
    """Each order is shown to other shoppers, as in A/B logs; an example is of one who agrees with the outcome."""
    by = lambda i, line: line | {"user": {"id": f"u{i}"}, "history": [{"title": f"film {i}"}]}
    places = [by(i, asked(*("ab" if i % 2 else "ba"), 1)) for i in range(6)]
    source, rows = opened(tmp_path, places)
    told = {"judgements": 6, "pairs": 1, "asked": 6, "first_place_won": 1.0, "shown_in_both_orders": 1, "undecided": 1}
    assert rows == [] and source.extras == {"preferences.json": told}
    tastes = [by(1, asked("a", "b", 1)), by(2, asked("b", "a", 2)), by(3, asked("a", "b", 2)), by(4, asked("a", "b", 1))]
    _, rows = opened(tmp_path, tastes)
    assert [(row.example["user"]["id"], row.example["reason"]) for row in rows] == [("u1", "a"), ("u2", "a"), ("u4", "a")]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_each_order_counts_alike(tmp_path_factory, judgements):
    """Against shares: of each order in which a pair was shown, how often 'a' won; their mean above or below a half."""
    lines = [asked(*(("a", "b") if first else ("b", "a")), 1 if wins == first else 2) for first, wins in judgements]
    _, rows = opened(tmp_path_factory.mktemp("asked"), lines)
    by_order = [[wins for first, wins in judgements if first == order] for order in (True, False)]
    shares = [sum(won) / len(won) for won in by_order if won]
    mean = sum(shares) / len(shares)
    expected = [] if abs(mean - 0.5) < 1e-9 else ["a" if mean > 0.5 else "b"]
    assert [row.example["reason"] for row in rows] == expected


BAD = [
    ({"reasons": ["a", "b", "c"]}, "'reasons' must be a list of two texts"),
    ({"reasons": ["a", " "]}, "'reasons' must be a list of two texts"),
    ({"reasons": ["a b", "a  b"]}, "both reasons are the same text"),
    ({"preferred": 3}, "'preferred' is 3; it must be 1 or 2"),
    ({"preferred": None}, "'preferred' has the wrong type"),
]


@pytest.mark.parametrize("change, told", BAD)
def test_what_is_no_judgement_is_told_by_line(tmp_path, change, told):
    (tmp_path / "train.jsonl").write_text(json.dumps(asked("a", "b", 1) | change) + "\n")
    with pytest.raises(UserError, match="line 1") as caught:
        prepare(PrepareConfig(layout="preferences", source=str(tmp_path), output=str(tmp_path / "out")))
    assert told in str(caught.value)


def test_a_pair_that_cleaning_makes_one_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"item": {"title": "t"}, "reason": "so <b>good</b>", "rejected": "so good"}) + "\n")
    with pytest.raises(UserError, match="'reason' and 'rejected' are the same text"):
        prepare(PrepareConfig(source=str(tmp_path), output=str(tmp_path / "out")))


def test_published_questions_are_read_back(tmp_path):
    lines = [{"instruction": text, "explanation_1": "one", "explanation_2": "two", "preferred": "2"} for text in (QUESTION, NEWS)]
    _, rows = opened(tmp_path, lines, "llmxrec_preferences", "preference_train.jsonl")
    film, news = (row.example for row in rows)
    assert film["user"]["attributes"] == {"age": 63, "gender": "male", "occupation": "programmer"}
    watched = [{"title": "Cool Hand Luke", "attributes": {"genre": ["Comedy", "Drama"]}}]
    assert film["history"] == [*watched, {"title": "Scream", "attributes": {"genre": ["Horror", "Thriller"]}}]
    assert film["item"] == {"title": "Dr. No", "attributes": {"kind": "movies", "genre": ["Action"]}}
    assert news["item"] == {"title": "Sunshine", "attributes": {"kind": "news", "category": ["weather", "sun"]}}
    assert (film["reason"], film["rejected"]) == ("two", "one")


def test_another_question_is_told(tmp_path):
    line = {"instruction": "Why?", "explanation_1": "one", "explanation_2": "two", "preferred": "2"}
    _, (row,) = opened(tmp_path, [line], "llmxrec_preferences", "preference_train.jsonl")
    assert "does not ask as the published questions do" in str(row.problem)
