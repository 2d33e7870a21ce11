"""Columns of the control report, by hand."""

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from rgjax.metrics import control
from rgjax.metrics.outside import Ngrams


def test_agreement_by_hand():
    found = control.agreement(["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "b", "c"])
    assert found == {"share": 0.75, "recall": {"a": 2 / 3, "b": 1.0, "c": None}, "confusion": [[2, 1, 0], [0, 1, 0], [0, 0, 0]]}


def test_self_bleu_compares_each_text_with_all_others():
    texts = ["a b c d e".split(), "a b c d f".split(), "x y z w v".split()]
    smooth = SmoothingFunction().method1
    each = [sentence_bleu([t for t in texts if t is not text], text, smoothing_function=smooth) for text in texts]
    assert control.self_bleu(texts) == pytest.approx(100 * sum(each) / 3)
    assert control.self_bleu([texts[0]] * 3) == pytest.approx(100.0) and control.self_bleu(texts[:1]) == 0.0


def test_columns_of_a_class():
    texts = ["a b a b".split(), "a b".split()]
    found = control.described(texts, Ngrams.fit(texts))
    assert (found["texts"], found["distinct_1"], found["distinct_2"], found["distinct_3"]) == (2, 2 / 6, 2 / 4, 2 / 2)
    assert set(control.COLUMNS) < set(found)


def test_columns_that_are_undefined_are_none():
    found = control.described([["a"], ["b"]], Ngrams.fit([["a"]]))
    assert (found["distinct_1"], found["distinct_2"], found["distinct_3"]) == (1.0, None, None)
    assert control.described([], Ngrams.fit([["a"]]))["perplexity"] is None


def test_intervals_hold_their_shares_and_resample_inputs():
    judged = ["a"] * 60 + ["b"] * 20 + ["b"] * 40 + ["a"] * 40  # 60 of 80 as asked, then 40 of 80
    found = control.intervals(judged, ["a", "b"], 2000)
    spread = lambda share: 1.96 * (share * (1 - share) / 80) ** 0.5
    assert found["a"] == pytest.approx([0.75 - spread(0.75), 0.75 + spread(0.75)], abs=0.02)
    assert found["b"] == pytest.approx([0.5 - spread(0.5), 0.5 + spread(0.5)], abs=0.02)
    assert found[""][0] < 0.625 < found[""][1]
    same = control.intervals(["a", "b"] * 20 + ["b", "a"] * 20, ["a", "b"], 500)  # each input has as many right as any other, or none
    assert same[""] == same["a"] == same["b"]
    assert control.intervals(["a", "a"] * 20, ["a", "b"], 500)[""] == [0.5, 0.5]
    assert control.shown(None, ".1%") == control.span(None, ".1%") == "-" and control.span([0.5, None], ".0%") == "[50%, -]"
