"""Reasons made fit to be shown."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rgjax.decode.polish import SUPERLATIVES, polish, template


@pytest.mark.parametrize(
    "raw,shown",
    [
        ("you loved Heat ,and this is tense.it has", "You loved Heat, and this is tense."),
        ("A calm story. a calm story! Warm too.", "A calm story. Warm too."),
        ("soft and warm soft and warm fabric", "Soft and warm fabric."),
        ("very very good", "Very good."),
        ("It is the world's best phone. It has a big screen.", "It has a big screen."),
        ("采用优质面料，采用优质面料，舒适。史无前例的设计。", "采用优质面料，舒适。"),
        ("穿着舒适", "穿着舒适。"),
        ("Ends with a comma,", "Ends with a comma."),
        ("guaranteed results", ""),
        ("   ", ""),
    ],
)
def test_examples(raw, shown):
    assert polish(raw) == shown


def test_banned_words_and_length():
    assert polish("It is cheap. It is fine.", banned=["cheap"]) == "It is fine."
    assert polish("One two three. Four five six. Seven.", max_words=4) == "One two three."


def test_titles_stay_as_they_are():
    kept = "New York, New York after Liar Liar, with E.T. the same. Fine"
    titles = ["New York, New York", "Liar Liar", "E.T."]
    assert polish(kept, titles=titles) == "New York, New York after Liar Liar, with E.T. the same."
    assert polish(kept) != polish(kept, titles=titles)


@given(st.text(alphabet="ab c.!,，。好舒适 \n", max_size=60))
@example("a.a a.")
def test_nothing_is_polished_twice(text):
    once = polish(text)
    assert polish(once) == once
    assert not once or once[-1] in ".!。"


@given(st.sampled_from(SUPERLATIVES), st.sampled_from(["{} indeed", "We say {}!", "好的{}。是的"]))
def test_no_superlative_is_left(word, frame):
    assert word.lower() not in polish(frame.format(word)).lower()


def test_the_template_names_what_there_is():
    assert template("Heat", ["A", "B", "C"], ["Crime"], False) == 'Because you chose "A", "B" and "C", you may like "Heat" (Crime).'
    assert template("Heat", [], [], False) == 'You may like "Heat".'
    assert template("红楼梦", ["水浒传"], ["小说"], True) == "因为你选过《水浒传》，为你推荐《红楼梦》（小说）。"
