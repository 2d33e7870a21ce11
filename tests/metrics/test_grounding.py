import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.metrics import grounding


def film(*history, item="Ronin", attributes=None):
    return {"item": {"title": item, "attributes": attributes or {}}, "history": [{"title": title} for title in history]}


@pytest.mark.parametrize(
    "title, bare",
    [
        ("Godfather, The", "Godfather"),
        ("The Godfather", "Godfather"),
        ("Godfather: Part II, The", "Godfather Part II"),
        ("Fish Called Wanda, A", "Fish Called Wanda"),
        ("Independence Day (ID4)", "Independence Day"),
        ("Toy Story (1995)", "Toy Story"),
        ("Postino, Il", "Postino"),
        ("Truth About Cats & Dogs, The", "Truth About Cats and Dogs"),
        ("The", "The"),
        ("A.I.", "A I"),
        ("(500)", "500"),
        ("肖申克的救赎", "肖申克的救赎"),
    ],
)
def test_normalised_titles(title, bare):
    assert grounding.normalise_title(title) == bare


@given(st.text(max_size=30))
def test_normalising_needs_no_second_pass_over_text(text):
    once = grounding.normalise_text(text)
    assert grounding.normalise_text(once) == once
    assert isinstance(grounding.normalise_title(text), str)


def test_find_respects_words_but_not_ideographs():
    assert grounding.find("Aliens and Alien", "Alien") == 11
    assert grounding.find("Jackie", "Jack") == -1
    assert grounding.find("喜欢红高粱的你", "红高粱") == 2
    assert grounding.find("anything", "") == -1
    assert grounding.find("Go! now", "Go!") == 0


@pytest.mark.parametrize(
    "history, text, expected",
    [
        (["Godfather, The"], "As you liked The Godfather, see Ronin.", (False, True)),
        (["Godfather, The"], "As you liked Godfather, The.", (True, True)),
        (["Alien"], "Like Aliens.", (False, False)),
        (["It"], "It is good, it thrills.", (True, True)),  # at a sentence's start nothing tells the pronoun from the film
        (["It"], "See it.", (False, False)),
        (["Pulp Fiction"], 'After "Pulp Fiction\'s" wit', (True, True)),
        (["Wizard of Oz, The"], "like the wizard of oz", (False, True)),
        (["Heat"], "", (False, False)),
        (["霸王别姬"], "喜欢霸王别姬的您", (True, True)),
    ],
)
def test_history_mentions(history, text, expected):
    assert grounding.names_history(film(*history), text) == expected


def test_the_items_own_title_is_no_history_mention():
    assert grounding.names_history(film("Alien", item="Alien Nation"), "Alien Nation is for you") == (False, False)
    assert grounding.names_history(film("Alien", item="Alien Nation"), "Alien leads to Alien Nation") == (True, True)
    assert grounding.names_history(film("Godfather, The", item="Godfather: Part II, The"), "See The Godfather: Part II") == (
        False,
        False,
    )
    assert grounding.names_history(film("Ronin", item="Ronin"), "Ronin again") == (False, False)


def test_quoted_spans():
    text = "Don't miss “Heat,” \"Ronin.\" or 《红高粱》， it's 'fine' and the \"open one"
    assert sorted(grounding.quoted_spans(text)) == sorted(["Heat", "Ronin", "红高粱"])
    assert grounding.quoted_spans('"." and "" and “ ”') == []


def test_invented_quotes():
    example = film("Godfather, The", "Heat", item="Independence Day (ID4)", attributes={"tag": ["Early Access"]})
    text = '"Heat," "The Godfather" "Independence Day" "early access" "Jaws" "Heat\'s"'
    # verbatim: 'The Godfather', 'early access', 'Jaws' and "Heat's" are in no title; normalised only 'Jaws' is not
    assert grounding.invented_spans(example, text) == (4, 1, 6)
    assert grounding.invented_spans(example, "no quotes, it's so") == (0, 0, 0)


def test_copied_share():
    example = film(attributes={"a": ["Sci-Fi", "War"], "b": "Action", "c": ["War"]})
    assert grounding.copied_share(example, "an action-packed sci-fi warfare") == 0.5
    assert math.isnan(grounding.copied_share(film(), "x"))
    assert grounding.copied_share(film(attributes={"材质": "牛仔布"}), "这牛仔布很好") == 1


def test_length_compliance_counts_words_or_characters():
    scores = grounding.metrics([film(), film()], ["one two three", "one two"], "en", 2)
    assert scores["length_compliance"].value == 50
    assert grounding.metrics([film()], ["白 T恤"], "zh", 3)["length_compliance"].value == 100
    assert grounding.length("白 T恤", "zh") == 3


def test_metrics_the_examples_cannot_show_are_left_out():
    scores = grounding.metrics([{"item": {}}], ["x"], "en", 10)
    assert set(scores) == {"length_compliance"}


def test_examples_without_history_do_not_count_in_the_mention_rate():
    scores = grounding.metrics([film("Heat"), film()], ["Heat", "x"], "en", 10)
    assert scores["history_mention"].value == 100
