"""Overlap with the reference: BLEU, chrF, ROUGE, and the convention published for AdvertiseGen.

sacrebleu, rouge-score and NLTK do the counting and the scoring. What they count of each example is kept apart, so that corpus
scores can be resampled exactly: a resample's counts are a weighted sum of the examples', and the library scores the sum.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from nltk.translate import bleu_score
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from rgjax.metrics import bootstrap, language
from rgjax.metrics.bootstrap import Metric, Sums

_ORDER = 4  # longest n-grams of BLEU
_ROUGE = {"1": "rouge1", "2": "rouge2", "l": "rougeL"}
Tokens = Sequence[Sequence[str]]


class _Cut:
    """What rouge-score asks for in place of a tokenizer, for texts that are lists of tokens already."""

    def tokenize(self, tokens: Sequence[str]) -> Sequence[str]:
        return tokens


_SCORER = rouge_scorer.RougeScorer(list(_ROUGE.values()), tokenizer=_Cut())
_SCORER_L = rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Cut())


def _statistics(metric, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """sacrebleu's sufficient statistics of each example, float64 [N, K]."""
    return np.array(metric._extract_corpus_statistics(outputs, [references]), float) if len(outputs) else np.zeros((0, 1))


def bleu_statistics(outputs: Tokens, references: Tokens) -> np.ndarray:
    """Per example: output length, reference length, then matched n-grams of 1..4, then output n-grams of 1..4."""
    metric = BLEU(tokenize="none", max_ngram_order=_ORDER, force=True)  # the tokens are cut: only spaces separate
    return _statistics(metric, [" ".join(t) for t in outputs], [" ".join(t) for t in references])


def bleu(statistics: np.ndarray, order: int) -> Sums:
    """Corpus BLEU of n-grams 1..order, one reference, no smoothing, x100 (Papineni et al. 2002), from `bleu_statistics`."""

    def score(sums: np.ndarray) -> float:
        length, wanted, *counts = np.rint(sums).astype(int).tolist()
        found, total = counts[:order], counts[_ORDER : _ORDER + order]
        return BLEU.compute_bleu(found, total, length, wanted, smooth_method="none", max_ngram_order=order).score

    return Sums(statistics, lambda sums: np.apply_along_axis(score, -1, sums))


def chrf(outputs: Sequence[str], references: Sequence[str]) -> Sums:
    """Corpus chrF2, x100 (Popović 2015): character n-grams 1..6 without spaces, beta 2, case kept; sacrebleu's default."""
    metric = CHRF()
    score = lambda sums: metric._compute_f_score(sums.tolist())
    return Sums(_statistics(metric, outputs, references), lambda sums: np.apply_along_axis(score, -1, sums))


def rouge_metrics(outputs: Tokens, references: Tokens, suffix: str = "") -> dict[str, Metric]:
    """`rouge_1`, `rouge_2`, `rouge_l` (+ suffix): mean F over examples, x100 (Lin 2004)."""
    scores = [_SCORER.score(r, o) for o, r in zip(outputs, references, strict=True)]
    return {f"rouge_{n}{suffix}": bootstrap.mean([s[name].fmeasure for s in scores], 100) for n, name in _ROUGE.items()}


def bleu_metrics(outputs: Tokens, references: Tokens, suffix: str = "") -> dict[str, Metric]:
    """`bleu_1` to `bleu_4` (+ suffix): corpus BLEU, unsmoothed, x100."""
    statistics = bleu_statistics(outputs, references)
    return {f"bleu_{n}{suffix}": bleu(statistics, n) for n in range(1, _ORDER + 1)}


def sentence_bleu(output: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU-4 of one sentence in [0, 1], smoothed by NLTK's method3: the k-th order without a match counts 1 / 2^k matches."""
    if not output or not reference:
        return 0.0
    return float(
        bleu_score.sentence_bleu([list(reference)], list(output), smoothing_function=bleu_score.SmoothingFunction().method3)
    )


def rouge_of_sets(output: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    """ROUGE-1, -2, -L F in [0, 1] as the package rouge-chinese counts: ROUGE-N on sets of n-grams, ROUGE-L on sequences."""
    scores = []
    for n in (1, 2):
        a, b = (Counter(set(rouge_scorer._create_ngrams(t, n))) for t in (reference, output))
        scores.append(rouge_scorer._score_ngrams(a, b).fmeasure)
    return *scores, _SCORER_L.score(reference, output)["rougeL"].fmeasure


def chatglm_metrics(outputs: Sequence[str], references: Sequence[str]) -> dict[str, Metric]:
    """The AdvertiseGen convention (ChatGLM-6B repository), per-sentence scores averaged, x100.

    `chatglm_bleu_4`: sentence BLEU-4 on characters, method3. `chatglm_rouge_1/2/l`: `rouge_of_sets` on jieba words.
    """
    glyphs, cut = language.characters, language.jieba_words
    bleus = [sentence_bleu(glyphs(o), glyphs(r)) for o, r in zip(outputs, references, strict=True)]
    rouges = np.array([rouge_of_sets(cut(o), cut(r)) for o, r in zip(outputs, references, strict=True)]).reshape(-1, 3)
    found = {f"chatglm_rouge_{n}": bootstrap.mean(rouges[:, i], 100) for i, n in enumerate(_ROUGE)}
    return {"chatglm_bleu_4": bootstrap.mean(bleus, 100), **found}


def metrics(outputs: Sequence[str], references: Sequence[str], lang: str) -> dict[str, Metric]:
    """All overlap metrics of a corpus in language `lang` ('en' or 'zh'); Chinese names say their tokens: `_char`, `_jieba`."""
    if lang == "en":
        cut = functools.partial(map, language.words)
        cut_rouge = functools.partial(map, language.rouge_words)
        found = bleu_metrics(list(cut(outputs)), list(cut(references)))
        found |= rouge_metrics(list(cut_rouge(outputs)), list(cut_rouge(references)))
        return found | {"chrf": chrf(outputs, references)}
    found = {}
    for suffix, cut in (("_char", language.characters), ("_jieba", language.jieba_words)):
        a, b = [cut(text) for text in outputs], [cut(text) for text in references]
        found |= bleu_metrics(a, b, suffix) | rouge_metrics(a, b, suffix)
    return found | {"chrf": chrf(outputs, references)} | chatglm_metrics(outputs, references)
