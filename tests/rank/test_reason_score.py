"""Grounded words of reasons, weighted by rarity: by hand, and what must not count."""

import math

import pytest

from rgjax.rank import reason_score


def test_by_hand():
    reasons = ["great red boots", "great blue hat", ""]
    found = reason_score.grounded(reasons, ["Red Shoe\nleather", "hat", "hat"])
    rare, common = math.log(4 / 2) + 1 / 4, math.log(4 / 3) + 1 / 4
    assert found == pytest.approx([rare / (2 * rare + common), rare / (2 * rare + common), 0.0])


def test_one_reason_alone_is_its_plain_share():
    assert reason_score.grounded(["soft wool scarf"], ["a scarf of wool"]) == pytest.approx([2 / 3])


def test_what_every_reason_says_counts_next_to_nothing():
    items = [f"thing{n}" for n in range(30)]
    about = reason_score.grounded([f"you will surely like {item}" for item in items], items)
    vague = reason_score.grounded([f"you will surely like {item}" for item in items], ["you will surely like it"] * 30)
    assert min(about) > 0.9 and max(vague) < 0.1


def test_chinese_counts_pairs_of_characters():
    own, other = reason_score.grounded(["红色羊毛围巾"], ["羊毛围巾"])[0], reason_score.grounded(["红色羊毛围巾"], ["毛羊巾围"])[0]
    assert 0 < other < own < 1


def test_sources_hold_titles_and_values():
    item = {"title": "Alien", "attributes": {"genre": ["Horror", "SciFi"], "year": 1979}}
    assert reason_score.source(item, [{"title": "Heat"}, {"attributes": None}]).split() == ["Alien", "Horror", "SciFi", "1979", "Heat"]
