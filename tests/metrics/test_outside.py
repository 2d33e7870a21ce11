"""The outside language model: its probabilities counted by hand, and they sum to one."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.metrics.outside import Ngrams

TEXTS = [list(t) for t in ("abca", "abcb", "bcaa", "cabd", "abcc")]  # 'd' is seen once: unknown


def test_probabilities_are_those_counted_by_hand():
    """c(x) + T p'(x) over c() + T, with c counted in the whole of every text and T the kinds seen there (Witten & Bell 1991)."""
    model = Ngrams.fit(TEXTS)
    whole = [["<s>", "<s>", *("<unk>" if t == "d" else t for t in text), "</s>"] for text in TEXTS]

    def expected(token, context):
        after = [t[i] for t in whole for i in range(2, len(t)) if t[i - len(context) : i] == context]
        shorter = expected(token, context[1:]) if context else 1 / 5  # a, b, c, the end and the unknown
        return (after.count(token) + len(set(after)) * shorter) / (len(after) + len(set(after))) if after else shorter

    for context in ([], ["a"], ["a", "b"], ["c", "a"], ["<s>", "<s>"], ["<s>", "b"], ["<unk>", "<unk>"]):
        for token in ("a", "b", "c", "</s>", "<unk>"):
            assert math.isclose(model.probability(token, tuple(context)), expected(token, context), rel_tol=1e-12), (token, context)


@given(st.lists(st.sampled_from("abcdx"), min_size=0, max_size=2))
@settings(max_examples=30, deadline=None)
def test_what_may_follow_a_context_sums_to_one(context):
    model = Ngrams.fit(TEXTS)
    assert math.isclose(sum(model.probability(t, tuple(context)) for t in (*model.known, "<unk>")), 1.0, rel_tol=1e-9)


def test_perplexity_is_the_geometric_mean_of_what_was_to_come():
    model = Ngrams.fit(TEXTS)
    steps = [("a", ("<s>", "<s>")), ("b", ("<s>", "a")), ("<unk>", ("a", "b")), ("</s>", ("b", "<unk>"))]
    expected = math.prod(model.probability(*step) for step in steps) ** (-1 / 4)
    assert math.isclose(model.perplexity([["a", "b", "z"]]), expected)
    assert model.perplexity(TEXTS) < model.perplexity([["c", "b", "a", "z"]])
    assert math.isnan(model.perplexity([]))
