"""Item nearest neighbours by cosine (Sarwar et al. 2001; Deshpande & Karypis 2004)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank.recommender import as_matrix

_CELLS = 20_000_000  # similarities held at once (float32): 80 MB


@dataclasses.dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """`neighbours_II` row i: the similarities of item i's nearest items; `taken_UI` what the users of the data took."""

    neighbours_II: sparse.csr_array
    taken_UI: sparse.csr_array

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: the sum over the user's items of the similarities of their neighbours."""
        return self._from(self.taken_UI[np.asarray(users)])

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """As `scores`, of any items; zeros for an empty history."""
        return self._from(as_matrix(histories, self.neighbours_II.shape[0]))

    def added(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float32 [M, N]: the similarities of each of the different items [N] of a history, as far as kept, to each of `items` [M]."""
        return self.neighbours_II[history][:, items].toarray().T

    def _from(self, taken_BI: sparse.csr_array) -> jax.Array:
        return jnp.asarray((taken_BI @ self.neighbours_II).toarray(), jnp.float32)


def fit(data: Interactions, neighbours: int = 100, shrinkage: float = 10.0) -> ItemNeighbours:
    """Similarity of i and j: users of both / (sqrt(users of i * users of j) + shrinkage); of one item the `neighbours` largest are kept.

    At equal similarity the lower number is kept. Raises UserError for a number of neighbours below 1 or a negative shrinkage.
    """
    if neighbours < 1 or shrinkage < 0:
        raise UserError(f"neighbours={neighbours} must be at least 1 and shrinkage={shrinkage} at least 0.")
    taken = data.matrix
    items = taken.shape[1]
    columns, roots = taken.T.tocsr(), np.sqrt(taken.sum(axis=0)).astype(np.float32)
    rows, parts = max(1, _CELLS // items), []
    for start in range(0, items, rows):
        part = slice(start, start + rows)
        together = (columns[part] @ taken).toarray()
        together[np.arange(len(together)), np.arange(start, start + len(together))] = 0.0
        alike = np.divide(together, roots[part, None] * roots + shrinkage, out=np.zeros_like(together), where=together > 0)
        parts.append(sparse.csr_array(np.where(_largest(alike, neighbours), alike, 0.0)))
    return ItemNeighbours(sparse.vstack(parts, format="csr"), taken)


def _largest(values_RI: np.ndarray, count: int) -> np.ndarray:
    """bool [R, I]: the `count` largest of each row, the first ones at a tie."""
    if count >= values_RI.shape[1]:
        return np.ones(values_RI.shape, bool)
    least_R = -np.partition(-values_RI, count - 1, axis=1)[:, count - 1 : count]
    above, tied = values_RI > least_R, values_RI == least_R
    return above | (tied & (np.cumsum(tied, axis=1) <= count - above.sum(axis=1, keepdims=True)))
