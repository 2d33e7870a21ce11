"""BLEU from a table of counts, against NLTK's sentence by sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from rgjax.metrics import ngram_bleu

TEXT = st.lists(st.sampled_from("abc"), min_size=0, max_size=9)
POOL = st.lists(TEXT, min_size=2, max_size=6)
METHOD1 = SmoothingFunction().method1
pytestmark = pytest.mark.filterwarnings("ignore")


def by_nltk(text, references):
    return [sentence_bleu(references, text, [1 / n] * n, smoothing_function=METHOD1) for n in (2, 3, 4, 5)]


@settings(max_examples=200, deadline=None)
@given(POOL, POOL)
def test_against_references(texts, references):
    truth = np.mean([by_nltk(text, references) for text in texts], axis=0)
    np.testing.assert_allclose(ngram_bleu.bleu(texts, references), truth, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(POOL)
def test_against_each_other(texts):
    truth = np.mean([by_nltk(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)], axis=0)
    np.testing.assert_allclose(ngram_bleu.self_bleu(texts), truth, atol=1e-12)


def test_a_text_alone_repeats_nobody_and_a_copy_everybody():
    text = "a man rides a horse on the beach".split()
    assert not ngram_bleu.self_bleu([text]).any() and not ngram_bleu.self_bleu([]).any() and not ngram_bleu.bleu([text], []).any()
    np.testing.assert_allclose(ngram_bleu.self_bleu([text, text]), 1.0)
    np.testing.assert_allclose(ngram_bleu.bleu([text], [["no"], text]), 1.0)
