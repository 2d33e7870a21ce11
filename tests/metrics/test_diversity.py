"""Diversity against brute force: the definitions written out with sets and loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.metrics import diversity

TEXTS = st.lists(st.text(alphabet="ab ", max_size=12), min_size=2, max_size=6)


def brute_distinct(token_lists, order):
    grams = [tuple(t[i : i + order]) for t in token_lists for i in range(len(t) - order + 1)]
    return len(set(grams)) / len(grams) if grams else float("nan")


@given(TEXTS, st.sampled_from([1, 2]))
def test_distinct_and_its_leave_one_out_equal_brute_force(texts, order):
    tokens = [text.split() for text in texts]
    metric = diversity.distinct(tokens, order)
    assert metric.value == pytest.approx(brute_distinct(tokens, order), nan_ok=True)
    without = [brute_distinct(tokens[:i] + tokens[i + 1 :], order) for i in range(len(tokens))]
    assert list(metric.without) == pytest.approx(without, nan_ok=True)


@given(TEXTS)
def test_usr_equals_brute_force(texts):
    assert diversity.unique_sentence_ratio(texts).value == len({tuple(t.split()) for t in texts}) / len(texts)


def test_usr_of_known_corpora():
    assert diversity.unique_sentence_ratio(["a  b", "a b", "c"]).value == pytest.approx(2 / 3)
    assert list(diversity.unique_sentence_ratio(["a", "a", "b"]).without) == pytest.approx([1, 1, 0.5])


def test_self_repetition():
    periodic = list("abcd" * 3)  # 9 four-grams of which 4 are distinct
    assert diversity.self_repetition([periodic]).value == pytest.approx(100 * 5 / 9)
    assert diversity.self_repetition([periodic, ["x"]]).value == pytest.approx(50 * 5 / 9)
    assert diversity.self_repetition([list("abcdefg")]).value == 0
    assert not np.isnan(diversity.self_repetition([[]]).value)
