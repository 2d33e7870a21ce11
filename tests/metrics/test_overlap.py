"""Overlap metrics against sacrebleu, rouge-score, NLTK and values computed once with rouge-chinese 1.0.3."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from rgjax.metrics import language, overlap

OUTPUTS = ['You liked "Heat", so Ronin\'s heist will thrill you.', "A quiet film.", "the the the cat sat on the mat, the cat"]
REFERENCES = ['Because you liked "Heat", you will like Ronin: a heist.', "A loud, quiet, long film!", "the cat sat on a mat"]
ZH_OUTPUTS = ["宽松的阔腿裤，宽松又显瘦。", "这款连衣裙面料舒适，面料舒适，穿着舒适！", "白色的 T恤，面料舒适"]
ZH_REFERENCES = ["阔腿裤的版型宽松，显瘦百搭。", "针织连衣裙，面料舒适亲肤。穿着舒适优雅。", "白色的T恤简约百搭"]
# rouge-chinese 1.0.3 on the jieba 0.42.1 words of those: ROUGE-1, -2, -L F per text
ROUGE_CHINESE = [[0.58823529, 0.0, 0.44444444], [0.58823529, 0.31578947, 0.52173913], [0.54545454, 0.44444444, 0.54545454]]
TEXT = st.text(alphabet="ab c.", max_size=30)
CORPUS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)


def sacrebleu_score(outputs, references, order):
    metric = BLEU(max_ngram_order=order, smooth_method="none", tokenize="none", force=True)
    join = [" ".join(tokens) for tokens in outputs], [[" ".join(tokens) for tokens in references]]
    return metric.corpus_score(*join).score


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_equals_sacrebleu(order):
    outputs, references = [language.words(t) for t in OUTPUTS], [language.words(t) for t in REFERENCES]
    ours = overlap.bleu_metrics(outputs, references)[f"bleu_{order}"].value
    assert ours == pytest.approx(sacrebleu_score(outputs, references, order), abs=1e-9)
    assert ours > 0


@settings(deadline=None)
@given(CORPUS, st.sampled_from([1, 2, 4]))
def test_bleu_equals_sacrebleu_on_any_corpus(corpus, order):
    outputs, references = zip(*[(language.words(a), language.words(b)) for a, b in corpus])
    ours = overlap.bleu_metrics(outputs, references)[f"bleu_{order}"].value
    assert ours == pytest.approx(sacrebleu_score(outputs, references, order), abs=1e-6)


@settings(deadline=None)
@given(CORPUS)
def test_chrf_equals_sacrebleu_on_any_corpus(corpus):
    outputs, references = map(list, zip(*corpus))
    assert overlap.chrf(outputs, references).value == pytest.approx(CHRF().corpus_score(outputs, [references]).score, abs=1e-6)


def test_chrf_equals_sacrebleu_on_chinese():
    expected = CHRF().corpus_score(ZH_OUTPUTS, [ZH_REFERENCES]).score
    assert overlap.chrf(ZH_OUTPUTS, ZH_REFERENCES).value == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(TEXT, TEXT)
def test_rouge_equals_rouge_score(output, reference):
    expected = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, output)
    ours = overlap.rouge(language.rouge_words(output), language.rouge_words(reference))
    assert ours == pytest.approx([expected[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")])


@pytest.mark.parametrize("suffix, cut", [("_char", language.characters), ("_jieba", language.jieba_words)])
def test_chinese_rouge_equals_rouge_score_with_our_tokens(suffix, cut):
    class Tokens:
        def tokenize(self, text):
            return cut(text)

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Tokens())
    scores = [scorer.score(r, o) for o, r in zip(ZH_OUTPUTS, ZH_REFERENCES)]
    ours = overlap.metrics(ZH_OUTPUTS, ZH_REFERENCES, "zh")
    for n, name in zip("12l", ("rouge1", "rouge2", "rougeL")):
        assert ours[f"rouge_{n}{suffix}"].value == pytest.approx(100 * np.mean([s[name].fmeasure for s in scores]))


def test_english_corpus_rouge_is_the_mean_of_examples():
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = 100 * np.mean([scorer.score(r, o)["rougeL"].fmeasure for o, r in zip(OUTPUTS, REFERENCES)])
    assert overlap.metrics(OUTPUTS, REFERENCES, "en")["rouge_l"].value == pytest.approx(expected)


@given(st.lists(st.sampled_from("abcd"), max_size=70), st.lists(st.sampled_from("abcd"), max_size=70))
def test_longest_common_subsequence_equals_the_table(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    assert overlap.longest_common_subsequence(a, b) == table[-1, -1]


@settings(deadline=None)
@given(st.text(alphabet="裙裤白色，", max_size=12), st.text(alphabet="裙裤白色，", min_size=1, max_size=12))
def test_sentence_bleu_equals_nltk_method3(output, reference):
    expected = nltk_bleu([list(reference)], list(output), smoothing_function=SmoothingFunction().method3) if output else 0.0
    assert overlap.sentence_bleu(list(output), list(reference)) == pytest.approx(expected)


def test_chatglm_rouge_equals_rouge_chinese():
    expected = np.array(ROUGE_CHINESE).mean(0) * 100
    ours = overlap.chatglm_metrics(ZH_OUTPUTS, ZH_REFERENCES)
    assert [ours[f"chatglm_rouge_{n}"].value for n in "12l"] == pytest.approx(expected, abs=1e-5)


def test_spaces_never_count():
    spaced = [" ".join(text) for text in ZH_REFERENCES]
    scores = overlap.metrics(spaced, ZH_REFERENCES, "zh")
    for name in ("bleu_4_char", "rouge_l_char", "chrf", "chatglm_bleu_4"):
        assert scores[name].value == pytest.approx(100)
    disjoint = overlap.metrics(["一 二 三 四 五"], ["六 七 八 九 十"], "zh")
    assert all(metric.value == 0 for metric in disjoint.values())


@given(CORPUS)
def test_scores_stay_within_0_and_100_and_empty_texts_are_no_error(corpus):
    outputs, references = zip(*corpus)
    for metric in overlap.metrics(outputs, references, "en").values():
        assert 0 <= metric.value <= 100 + 1e-9
