"""Texts as short vectors: TF-IDF of what describes an item, reduced to its main directions (latent semantic analysis).

Deerwester et al. 1990, "Indexing by latent semantic analysis". The directions have no sign and, where two weigh the same, no order that every
machine agrees on, so who trained on them keeps `basis`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import content

_SPARE, _ROUNDS = 64, 4  # directions that are followed beside those kept, and turns


@dataclasses.dataclass(frozen=True, eq=False)
class TextSpace:
    """`basis` float32 [F, Z] takes TF-IDF rows of the F terms of `vocabulary` to vectors."""

    vocabulary: content.Vocabulary
    basis: np.ndarray

    def of(self, described: list[list[str]]) -> np.ndarray:
        """float32 [N, Z]: vectors of length 1 of lists of terms (`content.terms`); zeros where no term is known."""
        found = self.vocabulary.rows(described) @ self.basis
        return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def vocabulary(data: Interactions) -> content.Vocabulary:
    """Of all items of the catalogue."""
    return content.Vocabulary.fit(content.described(data))


def fit(data: Interactions, width: int) -> TextSpace:
    """The `width` main directions of the catalogue's descriptions, filled up with zeros where there are fewer.

    Raises UserError where nothing is said of any item.
    """
    words = vocabulary(data)
    rows = words.rows(content.described(data))
    most = min(width, min(rows.shape) - 1)
    if most < 1:
        raise UserError("The catalogue has too few items with a title or an attribute to tell them apart; add some.")
    basis = np.zeros((rows.shape[1], width), np.float32)
    basis[:, :most] = _directions(rows, most)
    return TextSpace(words, basis)


def _directions(rows: sparse.csr_array, count: int) -> np.ndarray:
    """float64 [F, count]: the main directions of rows [N, F], strongest first, found from random ones by turns of the power method.

    Halko et al. 2011, arXiv:0909.4061. Unlike ARPACK's they are the same each time.
    """
    found = np.random.default_rng(0).normal(size=(rows.shape[1], min(count + _SPARE, *rows.shape)))
    for _ in range(_ROUNDS):
        found = np.linalg.qr(rows.T @ np.linalg.qr(rows @ found)[0])[0]
    return (np.linalg.svd(rows @ found, full_matrices=False)[2] @ found.T)[:count].T
