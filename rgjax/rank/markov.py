"""First-order Markov chain: what others took next after the item a user took last (the floor of sequential recommenders)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions


@dataclasses.dataclass(frozen=True, eq=False)
class Markov:
    """`transitions_II` counts of (item, next item) of one user; `popularity_I` float32 in [0, 1); `last_U` each user's last item, or -1."""

    transitions_II: sparse.csr_array
    popularity_I: np.ndarray
    last_U: np.ndarray

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: transitions from the user's last item, plus popularity below 1, which decides ties and where there are none."""
        return self._after(self.last_U[np.asarray(users)])

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """As `scores`, after the last item of each history; popularity alone for an empty one."""
        return self._after(np.array([h[-1] if len(h) else -1 for h in histories], int))

    def _after(self, last_B: np.ndarray) -> jax.Array:
        counts_BI = self.transitions_II[np.maximum(last_B, 0)].toarray() * (last_B >= 0)[:, None]
        return jnp.asarray(counts_BI + self.popularity_I, jnp.float32)


def fit(data: Interactions) -> Markov:
    """Counts pairs of consecutive events of a user, a repeat of the same item included."""
    items = len(data.items)
    same = data.user[1:] == data.user[:-1]
    pairs = (np.ones(int(same.sum()), np.float32), (data.item[:-1][same], data.item[1:][same]))
    sizes = np.diff(data.offsets)
    last_U = np.where(sizes > 0, data.item[np.maximum(data.offsets[1:] - 1, 0)], -1)
    popularity_I = (data.counts / (data.counts.max() + 1)).astype(np.float32)
    return Markov(sparse.csr_array(pairs, shape=(items, items)), popularity_I, last_U)
