"""Slots: what is taken out comes back, and no input can pass for a token of ours."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.data import slots

TITLES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=24)
MARKUP = st.sampled_from(["<h3>", "<|reason|>", "</s>", "<s>", "<pad>", "<item>", "<a0>", "<|style=short|>", '"', "“", "item", "h0"])
PIECES = st.one_of(TITLES, MARKUP, st.sampled_from(["流浪地球", "《三体》", "Heat", "Fargo, The", "like", " ", "因为您喜欢"]))


@given(st.lists(PIECES, max_size=8), st.lists(PIECES, max_size=4), st.lists(PIECES, max_size=3))
def test_what_is_taken_out_comes_back(pieces, titles, values):
    """Only exact mentions: no quotes (they match loosely) and no articles at the end (they are turned round)."""
    quotes = re.compile('["“”《》]')
    titles = {f"<h{i}>": t for i, t in enumerate(titles) if slots.natural_title(t) == t}
    values = {f"<a{i}>": v for i, v in enumerate(values)}
    reason = quotes.sub("", "".join([*pieces, *titles.values()]))
    taken = slots.extract(reason, titles, values)
    back = slots.fill(taken, titles | values)
    assert slots.neutral(back) == slots.neutral(reason)


@given(st.lists(PIECES, max_size=8))
def test_without_titles_nothing_but_markup_changes(pieces):
    reason = "".join(pieces)
    assert slots.extract(reason, {}) == slots.neutral(reason)
    assert not re.search(r"<(item|[ha]\d+)>", slots.neutral(reason))
    assert slots.neutral(slots.neutral(reason)) == slots.neutral(reason)


@pytest.mark.parametrize(
    "reason, titles, wanted",
    [
        ('You liked "heat", so', {"<h0>": "Heat"}, 'You liked "<h0>", so'),  # a quoted span matches whatever its case
        ("You liked Heat, not Heather or heat.", {"<h0>": "Heat"}, "You liked <h0>, not Heather or heat."),
        ('After "The Godfather,"', {"<h0>": "Godfather, The"}, 'After "<h0>,"'),
        ("Heat 2 after Heat", {"<h0>": "Heat", "<h1>": "Heat 2"}, "<h1> after <h0>"),  # the longest first
        ("因为您看过《流浪地球》，推荐三体全集", {"<h0>": "流浪地球", "<item>": "三体全集"}, "因为您看过《<h0>》，推荐<item>"),
        ("这条裤子", {"<item>": "裤"}, "这条裤子"),  # one character matches by accident
        ("Up, up and away", {"<h0>": "Up"}, "Up, up and away"),
        ('an "item" of note', {"<h0>": "item"}, 'an "<h0>" of note'),
        ('a "heat" item', {"<item>": "Heat", "<h0>": "item"}, 'a "<item>" <h0>'),  # the slot's own letters are no mention
        ('so "..." good', {"<h0>": "???"}, 'so "..." good'),  # a title of punctuation has no loose form
        ("see <h7> and <|reason|>", {"<h7>": "Heat"}, "see ‹h7> and ‹|reason|>"),
        ("Same and Same", {"<h0>": "Same", "<h1>": "Same"}, "<h0> and <h0>"),
    ],
)
def test_what_becomes_a_slot(reason, titles, wanted):
    assert slots.extract(reason, titles) == wanted


@pytest.mark.parametrize(
    "text, wanted",
    [
        ('You liked "<h0>" and "<h9>".', 'You liked "Heat" and.'),  # no referent: gone with its quotes
        ("看过《<h9>》和《<h0>》", "看过和《Heat》"),
        ("<h0><h0>", "HeatHeat"),
        ("a\0b <h9>c", "a\0bc"),
    ],
)
def test_filling(text, wanted):
    assert slots.fill(text, {"<h0>": "Heat"}) == wanted


def test_a_title_that_looks_like_a_slot_is_not_filled_again():
    assert slots.fill("<h0> <h1>", {"<h0>": "<h1>", "<h1>": "x"}) == "<h1> x"


def test_values_are_taken_whole():
    assert slots.extract("a red redder 红色裙", {}, {"<a0>": "red", "<a1>": "红色"}) == "a <a0> redder <a1>裙"
