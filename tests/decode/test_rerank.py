"""Choosing among candidates: agreement against its formula, grounding by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.decode import rerank

WORDS = st.lists(st.sampled_from(["a", "b", "c", "灯"]), max_size=70)


def table(a, b):
    found = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            found[i + 1, j + 1] = found[i, j] + 1 if x == y else max(found[i, j + 1], found[i + 1, j])
    return found[-1, -1]


@given(WORDS, WORDS)
def test_lcs_equals_the_table(a, b):
    assert rerank.lcs(a, b) == table(a, b) == rerank.lcs(b, a)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=2, max_size=8).map(" ".join), min_size=2, max_size=5))
def test_agreement_is_the_mean_over_all_others(texts):
    def like(x, y):
        x, y = x.split(), y.split()
        pairs = Counter(zip(x, x[1:], strict=False)), Counter(zip(y, y[1:], strict=False))
        return (2 * table(x, y) / len(x + y) + 2 * (pairs[0] & pairs[1]).total() / (len(x) + len(y) - 2)) / 2

    expected = [np.mean([like(t, u) for j, u in enumerate(texts) if j != i]) for i, t in enumerate(texts)]
    assert rerank.agreement(texts) == pytest.approx(expected)


def test_the_majority_wins_without_grounding():
    texts = ["a red lamp", "you will love this lamp", "you will love this lamp", "you will like this lamp"]
    assert rerank.best_first(texts, {"item": {}}, 0.0)[0] == 1
    assert rerank.agreement(["same"]) == [0.0]


def test_grounding_counts_titles_values_and_inventions():
    example = {"item": {"title": "Ronin", "attributes": {"genre": ["Action", "Crime"]}}, "history": [{"title": "Heat"}]}
    assert rerank.grounding("Like Heat, it is action.", example) == 1.5
    assert rerank.grounding('Like "Fargo", it is crime and action.', example) == 0.0
    assert rerank.grounding('Since you liked "Heat" see "Ronin".', example) == 1.0
    assert rerank.best_first(["Nice.", "Nice.", "Like Heat."], example, 5.0)[0] == 2
