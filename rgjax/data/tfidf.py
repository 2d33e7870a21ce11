"""Texts cut into terms, and as TF-IDF rows of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from rgjax.data.scripts import HAN

_WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+")
_PAIR = re.compile(rf"(?=([{HAN}]{{2}}))")


def terms(text: str) -> list[str]:
    """Case-folded words and single Chinese characters in their order, then the pairs of Chinese characters that stand side by side."""
    folded = text.casefold()
    return [*_WORD.findall(folded), *_PAIR.findall(folded)]


def vectors(texts: Sequence[str]) -> sparse.csr_array:
    """float32 [N, V]: TF-IDF of `terms`, 1 + log tf times log((1 + N) / (1 + df)) + 1, rows of length 1 (0 where empty)."""
    vocabulary: dict[str, int] = {}
    cells = [(n, vocabulary.setdefault(word, len(vocabulary))) for n, text in enumerate(texts) for word in terms(text)]
    row, column = np.array(cells, int).reshape(-1, 2).T
    counts = sparse.csr_array((np.ones(len(cells), np.float32), (row, column)), shape=(len(texts), max(len(vocabulary), 1)))
    counts.sum_duplicates()
    rarity = np.log((1 + len(texts)) / (1 + np.bincount(counts.indices, minlength=counts.shape[1]))) + 1
    counts.data = ((1 + np.log(counts.data)) * rarity[counts.indices]).astype(np.float32)
    return unit(counts)


def unit(rows: sparse.csr_array) -> sparse.csr_array:
    """The rows at length 1; empty ones stay empty."""
    length = np.sqrt(np.asarray((rows * rows).sum(1)).reshape(-1))
    return sparse.csr_array(sparse.diags_array(1 / np.where(length > 0, length, 1)) @ rows)
