"""Changed texts, and how scores tell them apart, against counting pairs and scikit-free formulas."""

import collections

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rgjax.metrics import tampering


@pytest.mark.parametrize(("text", "lang"), [("You liked Heat, so try Ronin.", "en"), ("你喜欢火车，试试飞机。", "zh")])
def test_words_change_places_and_none_is_lost(text, lang):
    found = tampering.swapped(text, lang, np.random.default_rng(0))
    assert found != text and collections.Counter(found) == collections.Counter(text)
    assert tampering.swapped("Same same same", "en", np.random.default_rng(0)) == "Same same same"


def test_a_claim_comes_second():
    assert tampering.inserted("It is light. Take it along.", "It heals pain! Really.") == "It is light. It heals pain! Take it along."
    assert tampering.inserted("很轻。带上吧。", "能治病。真的。") == "很轻。能治病。带上吧。"
    assert tampering.inserted("no stop", "none either") == "no stop none either"


@hypothesis.given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
@hypothesis.settings(deadline=None)
def test_shares_are_those_of_counting(pairs):
    clean, changed = (np.array(values, float) for values in zip(*pairs, strict=True))
    found = tampering.told(clean, changed, 100)
    above = np.mean([(b > a) + 0.5 * (a == b) for a in clean for b in changed])
    assert found["auc"] == pytest.approx(above)
    assert found["above_own"] == pytest.approx(np.mean([(b > a) + 0.5 * (a == b) for a, b in pairs]))
    assert found["low"] <= found["above_own"] <= found["high"] and 0 <= found["caught"] <= 1


def test_what_is_plain_is_caught():
    clean = np.arange(100.0)
    assert tampering.told(clean, clean + 1000, 100)["caught"] == 1 and tampering.told(clean, clean - 1000, 100)["auc"] == 0


def test_surprise_is_that_of_the_least_likely_tenth():
    assert tampering.surprise(np.array([5.0])) == 5
    assert tampering.surprise(np.arange(14.0)) == 13
    assert tampering.surprise(np.random.default_rng(0).permutation(40).astype(float)) == np.mean([36, 37, 38, 39])
    assert tampering.limit(np.arange(101.0)) == 95
