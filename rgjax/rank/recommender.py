"""What every recommender gives: scores of all items, for users it was fitted on and, where the method allows it, for new histories.

Each module of this package has `fit(data, ...)`, which returns one. Nothing is filtered: seen items keep their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError


@runtime_checkable
class Recommender(Protocol):
    """Scores of all I items for users of the data it was fitted on."""

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I] for user numbers int [B]; higher is better."""


@runtime_checkable
class HistoryRecommender(Recommender, Protocol):
    """One that also scores for users it was not fitted on, from the items they took."""

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """float32 [B, I] for histories of item numbers in order of time; an empty one gets what the method has for strangers."""


@runtime_checkable
class LinearRecommender(HistoryRecommender, Protocol):
    """One whose score of an item is a sum over the different items of a history: what each adds is exact."""

    def added(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float32 [M, N]: what each of the different items int [N] of a history adds to the score of each of `items` int [M]."""


@runtime_checkable
class ProfileRecommender(HistoryRecommender, Protocol):
    """One that reads users' profiles beside their histories."""

    def from_seen(self, seen: Interactions, users: np.ndarray) -> jax.Array:
        """float32 [B, I] for user numbers int [B], by their histories and profiles in `seen`."""


def by_seen(part: HistoryRecommender, seen: Interactions, users: np.ndarray) -> jax.Array:
    """float32 [B, I] for user numbers int [B], by what `seen` tells of them, not as they were fitted."""
    if isinstance(part, ProfileRecommender):
        return part.from_seen(seen, users)
    return part.from_histories([seen.history(user) for user in users])


def as_matrix(histories: Sequence[np.ndarray], items: int, *, repeats: bool = False) -> sparse.csr_array:
    """float32 [B, I]: 1 where a history holds the item, or how often (repeats). Raises UserError at an item number outside the catalogue."""
    flat = np.concatenate([np.zeros(0, np.int64), *(np.asarray(h, np.int64) for h in histories)])
    if flat.size and (flat.min() < 0 or flat.max() >= items):
        raise UserError(f"A history holds item {flat.min() if flat.min() < 0 else flat.max()} and the catalogue has items 0 to {items - 1}.")
    rows = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    found = sparse.csr_array((np.ones(len(flat), np.float32), (rows, flat)), shape=(len(histories), items))
    found.sum_duplicates()
    if not repeats:
        found.data[:] = 1.0
    return found


def times(taken_BI: sparse.csr_array, weights_II) -> jax.Array:
    """float32 [B, I]: the product. On the CPU only the rows of items that were taken are read; an accelerator multiplies densely."""
    if jax.default_backend() == "cpu":
        return jnp.asarray(taken_BI @ np.asarray(weights_II), jnp.float32)
    return jnp.asarray(taken_BI.toarray()) @ weights_II
