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
