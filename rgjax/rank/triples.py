"""Items by the entities they share in the triples: neighbours in the graph of facts, without any training.

An item's neighbourhood holds the entities that a triple links it with, at either end, rare ones weighing more (TF-IDF); where items are linked
with each other, it holds the item too. Two items are as near as the cosine of their neighbourhoods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import content
from rgjax.rank.recommender import as_matrix


@dataclasses.dataclass(frozen=True, eq=False)
class FactNeighbours:
    """`around_IE` float [I, E]: each item's weighted neighbourhood, of length 1 or zeros; `taken_UI` what the users of the data took."""

    around_IE: sparse.csr_array
    taken_UI: sparse.csr_array

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: the sum over the user's items of their nearness."""
        return self._from(self.taken_UI[np.asarray(users)])

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """As `scores`, of any items; zeros for an empty history."""
        return self._from(as_matrix(histories, self.around_IE.shape[0]))

    def _from(self, taken_BI: sparse.csr_array) -> jax.Array:
        return jnp.asarray((taken_BI @ self.around_IE @ self.around_IE.T).toarray(), jnp.float32)


def fit(data: Interactions) -> FactNeighbours:
    """Of all items, also those that nobody took. Raises UserError for a shop without triples of items."""
    said: list[list[str]] = [[] for _ in range(len(data.items))]
    for head, _, tail in data.triples.tolist():
        for item, other in ((head, tail), (tail, head)):
            if item < len(said):
                said[item].append(str(other))
                if other < len(said):
                    said[item].append(str(item))
    if not any(said):
        raise UserError("--models=triples reads triples of the items and the shop has none; add a table of them, or leave it out.")
    return FactNeighbours(content.features(said, np.ones(len(said), bool)), data.matrix)
