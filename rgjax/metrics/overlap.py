"""Overlap with the reference: BLEU, chrF, ROUGE, and the convention published for AdvertiseGen.

Everything is written as sufficient statistics per example, so that corpus scores can be resampled exactly; the scores equal those
of sacrebleu, rouge-score and NLTK, which the tests check against.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from rgjax.metrics import bootstrap, language
from rgjax.metrics.bootstrap import Metric, Sums

_CHRF_ORDER, _CHRF_BETA = 6, 2.0
Tokens = Sequence[Sequence[str]]


def ngrams(tokens: Sequence[str], order: int) -> Counter:
    """Counts of the n-grams (tuples) of `order` tokens."""
    return Counter(zip(*(tokens[i:] for i in range(order))))


def _matches(a: Counter, b: Counter) -> int:
    if len(a) > len(b):
        a, b = b, a
    return sum(min(count, b[gram]) for gram, count in a.items() if gram in b)


def bleu_statistics(outputs: Tokens, references: Tokens, order: int = 4) -> np.ndarray:
    """Per example: output length, reference length, then matched n-grams of 1..order, then output n-grams of 1..order."""
    rows = []
    for output, reference in zip(outputs, references, strict=True):
        found = [_matches(ngrams(output, n), ngrams(reference, n)) for n in range(1, order + 1)]
        rows.append([len(output), len(reference), *found, *(max(len(output) - n, 0) for n in range(order))])
    return np.array(rows, float).reshape(-1, 2 + 2 * order)


def bleu(statistics: np.ndarray, order: int) -> Sums:
    """Corpus BLEU of n-grams 1..order, one reference, no smoothing, x100 (Papineni et al. 2002), from `bleu_statistics`."""
    most = (statistics.shape[1] - 2) // 2

    def reduce(sums):
        length, wanted = sums[..., 0], sums[..., 1]
        found, total = sums[..., 2 : 2 + order], sums[..., 2 + most : 2 + most + order]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(found > 0, np.log(found) - np.log(total), -np.inf).mean(-1)
            brevity = np.minimum(0.0, 1 - wanted / length)
            return np.where(length > 0, 100 * np.exp(logs + brevity), 0.0)

    return Sums(statistics, reduce)


def chrf(outputs: Sequence[str], references: Sequence[str]) -> Sums:
    """Corpus chrF2, x100 (Popović 2015): character n-grams 1..6 without spaces, beta 2, case kept; sacrebleu's default."""
    rows = []
    for output, reference in zip(outputs, references, strict=True):
        output, reference = "".join(output.split()), "".join(reference.split())
        row = []
        for n in range(1, _CHRF_ORDER + 1):
            a = Counter(output[i : i + n] for i in range(len(output) - n + 1))
            b = Counter(reference[i : i + n] for i in range(len(reference) - n + 1))
            row += [a.total() if b else 0, b.total(), _matches(a, b)]  # sacrebleu drops orders the reference is too short for
        rows.append(row)
    return Sums(np.array(rows, float).reshape(-1, 3 * _CHRF_ORDER), _chrf_score)


def _chrf_score(sums: np.ndarray) -> np.ndarray:
    total, wanted, found = (sums[..., i::3] for i in range(3))
    usable = (total > 0) & (wanted > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = usable.sum(-1)
        precision = np.where(usable, found / total, 0).sum(-1) / orders
        recall = np.where(usable, found / wanted, 0).sum(-1) / orders
        score = 100 * (1 + _CHRF_BETA**2) * precision * recall / (_CHRF_BETA**2 * precision + recall)
    return np.nan_to_num(score, nan=0.0)


def f_measure(matches: float, output_total: float, reference_total: float) -> float:
    """Harmonic mean of precision and recall in [0, 1]; 0 when nothing matches."""
    return 2 * matches / (output_total + reference_total) if matches else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel: one integer operation per token of `b` (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for i, token in enumerate(a):
        positions[token] = positions.get(token, 0) | (1 << i)
    mask = (1 << len(a)) - 1
    row = mask  # bit i is 0 where the table's row steps up at column i
    for token in b:
        matched = row & positions.get(token, 0)
        row = ((row + matched) | (row - matched)) & mask
    return len(a) - row.bit_count()


def rouge(output: Sequence[str], reference: Sequence[str], distinct: bool = False) -> tuple[float, float, float]:
    """ROUGE-1, -2 and -L F-measures in [0, 1] of two token sequences (Lin 2004); `distinct` counts each n-gram once."""
    scores = []
    for n in (1, 2):
        a, b = ngrams(output, n), ngrams(reference, n)
        if distinct:
            a, b = Counter(a.keys()), Counter(b.keys())
        scores.append(f_measure(_matches(a, b), a.total(), b.total()))
    scores.append(f_measure(longest_common_subsequence(output, reference), len(output), len(reference)))
    return tuple(scores)


def rouge_metrics(outputs: Tokens, references: Tokens, suffix: str = "") -> dict[str, Metric]:
    """`rouge_1`, `rouge_2`, `rouge_l` (+ suffix): mean F over examples, x100."""
    scores = np.array([rouge(o, r) for o, r in zip(outputs, references, strict=True)]).reshape(-1, 3)
    return {f"rouge_{n}{suffix}": bootstrap.mean(scores[:, i], 100) for i, n in enumerate("12l")}


def bleu_metrics(outputs: Tokens, references: Tokens, suffix: str = "") -> dict[str, Metric]:
    """`bleu_1` to `bleu_4` (+ suffix): corpus BLEU, unsmoothed, x100."""
    statistics = bleu_statistics(outputs, references)
    return {f"bleu_{n}{suffix}": bleu(statistics, n) for n in (1, 2, 3, 4)}


def sentence_bleu(output: Sequence[str], reference: Sequence[str]) -> float:
    """BLEU-4 of one sentence in [0, 1] with NIST geometric smoothing, NLTK's `SmoothingFunction().method3`.

    The k-th order without a match counts 1 / 2^k matches; 0 when not one token matches.
    """
    length, wanted, *counts = bleu_statistics([output], [reference])[0]
    if not counts[0]:
        return 0.0
    logs, missing = 0.0, 0
    for matches, total in zip(counts[:4], counts[4:]):
        missing += not matches
        logs += np.log((matches or 0.5**missing) / max(total, 1)) / 4
    return float(np.exp(logs + min(0.0, 1 - wanted / length)))


def chatglm_metrics(outputs: Sequence[str], references: Sequence[str]) -> dict[str, Metric]:
    """The AdvertiseGen convention (ChatGLM-6B repository), per-sentence scores averaged, x100.

    `chatglm_bleu_4`: sentence BLEU-4 on characters, method3. `chatglm_rouge_1/2/l`: F on jieba words as the package rouge-chinese
    counts, which is ROUGE-N on sets of n-grams and ROUGE-L on sequences.
    """
    glyphs, cut = language.characters, language.jieba_words
    bleus = [sentence_bleu(glyphs(o), glyphs(r)) for o, r in zip(outputs, references, strict=True)]
    rouges = np.array([rouge(cut(o), cut(r), distinct=True) for o, r in zip(outputs, references, strict=True)]).reshape(-1, 3)
    found = {f"chatglm_rouge_{n}": bootstrap.mean(rouges[:, i], 100) for i, n in enumerate("12l")}
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
