"""The most popular items, the same for everybody: the floor of every other recommender."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.interactions import Interactions


@dataclasses.dataclass(frozen=True, eq=False)
class Popularity:
    """`counts_I` float32: events of each item."""

    counts_I: jax.Array

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: the counts, in every row."""
        return jnp.broadcast_to(self.counts_I, (len(users), len(self.counts_I)))

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """As `scores`."""
        return self.scores(np.zeros(len(histories), int))


def fit(data: Interactions) -> Popularity:
    """Counts events."""
    return Popularity(jnp.asarray(data.counts, jnp.float32))
