"""Items by what is said of them: vectors for items that nobody had yet, in the space of a trained model.

An item's words, attributes and triples are weighted by TF-IDF; a ridge regression from them to the vectors that the model learned for the
items it knows places the others beside items that are described alike (as in DropoutNet's and CB2CF's reading of cold start: content is
mapped to where behaviour would put it; Barkan et al. 2019, arXiv:1611.00384).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import lsmr

from rgjax.data import tfidf
from rgjax.data.interactions import Interactions, attribute_values
from rgjax.errors import UserError
from rgjax.rank.sequence import SequenceRecommender

PENALTY = 1.0  # L2 of the regression on TF-IDF rows of unit length


def terms(title: str, attributes: dict, facts=()) -> list[str]:
    """What an item is described by: the `tfidf.terms` of the title, 'name=value' of attributes, and 'relation>tail' of triples."""
    values = (f"{n}={v}" for n in attributes for v in attribute_values(attributes, n))
    return [*tfidf.terms(title), *values, *(f"{r}>{t}" for r, t in facts)]


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The terms of some descriptions with their rarity, log((1 + N) / (1 + n)) + 1 where n of the N hold the term."""

    numbers: dict[str, int]
    rarity: np.ndarray

    @classmethod
    def fit(cls, described: list[list[str]]) -> Vocabulary:
        """Of lists of terms, in the order of their first use; raises UserError where there is none."""
        numbers: dict[str, int] = {}
        for words in described:
            for term in words:
                numbers.setdefault(term, len(numbers))
        if not numbers:
            raise UserError("No item of the catalogue has a title, an attribute or a triple, so new items can't be placed by them; add some.")
        seen = np.bincount([numbers[term] for words in described for term in set(words)], minlength=len(numbers))
        return cls(numbers, np.log((1 + len(described)) / (1 + seen)) + 1)

    def rows(self, described: list[list[str]]) -> sparse.csr_array:
        """float64 [N, F]: TF-IDF rows of unit length, log(1 + times) x rarity; zeros where no term is known."""
        kept = [[self.numbers[word] for word in words if word in self.numbers] for words in described]
        ends = np.cumsum([0, *map(len, kept)])
        columns = np.fromiter((n for row in kept for n in row), int, ends[-1])
        counts = sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(described), len(self.numbers)))
        counts.sum_duplicates()
        counts.data = np.log1p(counts.data)
        weighted = counts @ sparse.diags_array(self.rarity)
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).reshape(-1))
        return sparse.csr_array(sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ weighted)


def described(data: Interactions) -> list[list[str]]:
    """The terms of every item of the catalogue."""
    return [terms(t, a, sorted(data.facts.get(i, ()))) for i, (t, a) in enumerate(zip(data.items.titles, data.items.attributes, strict=True))]


def features(said: list[list[str]], known: np.ndarray) -> sparse.csr_array:
    """float64 [I, F]: TF-IDF rows of unit length, of terms that an item of bool `known` [I] has; zeros where nothing is said."""
    return Vocabulary.fit([said[item] for item in np.flatnonzero(known)]).rows(said)


def placed(rows: sparse.csr_array, vectors_ID: np.ndarray, known: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """float32 [I, D]: `vectors_ID` of the known items, and for the others what the regression on the known ones says."""
    target = np.asarray(vectors_ID, np.float64)[known]
    mean = target.mean(axis=0)
    weights = np.stack([lsmr(rows[known], column, damp=penalty**0.5, atol=1e-8, btol=1e-8)[0] for column in (target - mean).T], axis=1)
    return np.where(known[:, None], vectors_ID, mean + rows @ weights).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedItems:
    """A model of behaviour whose cold items stand where their description puts them."""

    model: SequenceRecommender
    vectors_ID: np.ndarray

    def scores(self, users: np.ndarray) -> np.ndarray:
        """float32 [B, I]."""
        return self.model.user_vectors(users) @ self.vectors_ID.T


def with_placed_items(model: SequenceRecommender, data: Interactions, known: np.ndarray) -> PlacedItems:
    """`known` bool [I] are the items that the model was trained on."""
    return PlacedItems(model, placed(features(described(data), known), model.item_vectors(), known))
