"""Overlap metrics against textbook formulas written out, cases counted by hand, and values of rouge-chinese 1.0.3."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.metrics import bootstrap, language, overlap

OUTPUTS = ['You liked "Heat", so Ronin\'s heist will thrill you.', "A quiet film.", "the the the cat sat on the mat, the cat"]
REFERENCES = ['Because you liked "Heat", you will like Ronin: a heist.', "A loud, quiet, long film!", "the cat sat on a mat"]
ZH_OUTPUTS = ["宽松的阔腿裤，宽松又显瘦。", "这款连衣裙面料舒适，面料舒适，穿着舒适！", "白色的 T恤，面料舒适"]
ZH_REFERENCES = ["阔腿裤的版型宽松，显瘦百搭。", "针织连衣裙，面料舒适亲肤。穿着舒适优雅。", "白色的T恤简约百搭"]
# rouge-chinese 1.0.3 on the jieba 0.42.1 words of those: ROUGE-1, -2, -L F per text
ROUGE_CHINESE = [[0.58823529, 0.0, 0.44444444], [0.58823529, 0.31578947, 0.52173913], [0.54545454, 0.44444444, 0.54545454]]
TEXT = st.text(alphabet="ab c.", max_size=30)
CORPUS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)


def grams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def naive_bleu(outputs, references, order):
    """exp(mean log precision) x brevity penalty (Papineni et al. 2002, equations 1 to 3)."""
    length, wanted = sum(map(len, outputs)), sum(map(len, references))
    logs = 0.0
    for n in range(1, order + 1):
        found = sum((grams(o, n) & grams(r, n)).total() for o, r in zip(outputs, references, strict=False))
        total = sum(grams(o, n).total() for o in outputs)
        if not found:
            return 0.0
        logs += math.log(found / total) / order
    return 100 * math.exp(logs) * min(1.0, math.exp(1 - wanted / length))


def naive_chrf(outputs, references):
    """F2 of the mean precision and the mean recall over the orders 1..6 that both sides have (Popović 2015)."""
    precisions, recalls = [], []
    pairs = [("".join(o.split()), "".join(r.split())) for o, r in zip(outputs, references, strict=False)]
    for n in range(1, 7):
        # An output is not blamed for n-grams longer than its reference.
        total = sum(grams(o, n).total() for o, r in pairs if len(r) >= n)
        wanted = sum(grams(r, n).total() for _, r in pairs)
        found = sum((grams(o, n) & grams(r, n)).total() for o, r in pairs)
        if total and wanted:
            precisions.append(found / total)
            recalls.append(found / wanted)
    p, r = (sum(x) / len(x) if x else 0.0 for x in (precisions, recalls))
    return 100 * 5 * p * r / (4 * p + r) if p + r else 0.0


def longest(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def naive_rouge(output, reference):
    """F1 of common unigrams, bigrams and of the longest common subsequence (Lin 2004)."""
    f = lambda m, a, b: 2 * m / (a + b) if m else 0.0
    common = [(grams(output, n), grams(reference, n)) for n in (1, 2)]
    scores = [f((a & b).total(), a.total(), b.total()) for a, b in common]
    return [*scores, f(longest(output, reference), len(output), len(reference))]


def test_bleu_counted_by_hand():
    outputs, references = [["the", "the", "cat", "sat"]], [["the", "cat", "sat", "down", "there"]]
    metrics = overlap.bleu_metrics(outputs, references)
    brevity = math.exp(1 - 5 / 4)  # 3 of 4 unigrams (the second "the" is clipped), 2 of 3 bigrams, 1 of 2 trigrams, no 4-gram
    assert metrics["bleu_1"].value == pytest.approx(100 * brevity * 3 / 4)
    assert metrics["bleu_2"].value == pytest.approx(100 * brevity * math.sqrt(3 / 4 * 2 / 3))
    assert metrics["bleu_3"].value == pytest.approx(100 * brevity * (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert metrics["bleu_4"].value == 0


@settings(deadline=None)
@given(CORPUS, st.sampled_from([1, 2, 3, 4]))
def test_bleu_equals_the_formula_on_any_corpus(corpus, order):
    outputs, references = zip(*[(language.words(a), language.words(b)) for a, b in corpus], strict=False)
    ours = overlap.bleu_metrics(outputs, references)[f"bleu_{order}"].value
    assert ours == pytest.approx(naive_bleu(outputs, references, order), abs=1e-9)


def test_chrf_counted_by_hand():
    # unigrams 2 of 3 and 2 of 2, bigrams 1 of 2 and 1 of 1; the reference has no trigram
    p, r = (2 / 3 + 1 / 2) / 2, 1.0
    assert overlap.chrf(["abc"], ["a b"]).value == pytest.approx(100 * 5 * p * r / (4 * p + r))


@settings(deadline=None)
@given(CORPUS)
def test_chrf_equals_the_formula_on_any_corpus(corpus):
    outputs, references = map(list, zip(*corpus, strict=False))
    assert overlap.chrf(outputs, references).value == pytest.approx(naive_chrf(outputs, references), abs=1e-6)


def test_chrf_of_chinese():
    assert overlap.chrf(ZH_OUTPUTS, ZH_REFERENCES).value == pytest.approx(naive_chrf(ZH_OUTPUTS, ZH_REFERENCES), abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=20), st.lists(st.sampled_from("abcd"), max_size=20))
def test_rouge_equals_the_formula(output, reference):
    ours = overlap.rouge_metrics([output], [reference])
    assert [ours[f"rouge_{n}"].value / 100 for n in "12l"] == pytest.approx(naive_rouge(output, reference))


def test_english_rouge_takes_lower_case_words_and_the_mean_of_examples():
    cut = lambda text: re.findall("[a-z0-9]+", text.lower())
    expected = 100 * np.mean([naive_rouge(cut(o), cut(r)) for o, r in zip(OUTPUTS, REFERENCES, strict=False)], axis=0)
    ours = overlap.metrics(OUTPUTS, REFERENCES, "en")
    assert [ours[f"rouge_{n}"].value for n in "12l"] == pytest.approx(expected)


@pytest.mark.parametrize("suffix, cut", [("_char", language.characters), ("_jieba", language.jieba_words)])
def test_chinese_rouge_is_of_characters_and_of_words(suffix, cut):
    expected = 100 * np.mean([naive_rouge(cut(o), cut(r)) for o, r in zip(ZH_OUTPUTS, ZH_REFERENCES, strict=False)], axis=0)
    ours = overlap.metrics(ZH_OUTPUTS, ZH_REFERENCES, "zh")
    assert [ours[f"rouge_{n}{suffix}"].value for n in "12l"] == pytest.approx(expected)


@settings(deadline=None)
@given(st.text(alphabet="裙裤白色，", max_size=12), st.text(alphabet="裙裤白色，", min_size=1, max_size=12))
def test_sentence_bleu_halves_for_each_order_without_a_match(output, reference):
    logs, missing = 0.0, 0
    for n in range(1, 5):
        found = (grams(output, n) & grams(reference, n)).total()
        missing += not found
        logs += math.log((found or 0.5**missing) / max(1, grams(output, n).total())) / 4
    one = set(output) & set(reference)
    expected = math.exp(logs + min(0.0, 1 - len(reference) / len(output))) if one else 0.0
    assert overlap.sentence_bleu(list(output), list(reference)) == pytest.approx(expected)


def test_chatglm_rouge_equals_rouge_chinese():
    expected = np.array(ROUGE_CHINESE).mean(0) * 100
    ours = overlap.chatglm_metrics(ZH_OUTPUTS, ZH_REFERENCES)
    assert [ours[f"chatglm_rouge_{n}"].value for n in "12l"] == pytest.approx(expected, abs=1e-5)


def test_rouge_of_sets_counts_each_ngram_once():
    assert overlap.rouge_of_sets(list("aab"), list("ab")) == pytest.approx((1.0, 2 * 1 / 3, 2 * 2 / 5))
    assert overlap.rouge_of_sets([], list("ab")) == (0, 0, 0)


@pytest.mark.parametrize("name", ["bleu_2", "rouge_l", "chrf"])
def test_a_resample_scores_what_its_texts_score(name):
    metric = overlap.metrics(OUTPUTS, REFERENCES, "en")[name]
    drawn = bootstrap.replicates({"m": metric}, 20, seed=0)["m"]
    for value, weights in zip(drawn, np.concatenate(list(bootstrap.resample_weights(3, 20, seed=0))), strict=False):
        picked = np.repeat(np.arange(3), weights.astype(int))
        again = overlap.metrics([OUTPUTS[i] for i in picked], [REFERENCES[i] for i in picked], "en")[name]
        assert value == pytest.approx(again.value)


def test_spaces_never_count():
    spaced = [" ".join(text) for text in ZH_REFERENCES]
    scores = overlap.metrics(spaced, ZH_REFERENCES, "zh")
    for name in ("bleu_4_char", "rouge_l_char", "chrf", "chatglm_bleu_4"):
        assert scores[name].value == pytest.approx(100)
    disjoint = overlap.metrics(["一 二 三 四 五"], ["六 七 八 九 十"], "zh")
    assert all(metric.value == 0 for metric in disjoint.values())


@settings(deadline=None)
@given(CORPUS)
def test_scores_stay_within_0_and_100_and_empty_texts_are_no_error(corpus):
    outputs, references = zip(*corpus, strict=False)
    for metric in overlap.metrics(outputs, references, "en").values():
        assert 0 <= metric.value <= 100 + 1e-9
