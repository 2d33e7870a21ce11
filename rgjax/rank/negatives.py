"""Pairs of what a user took and what not, drawn on the device inside a compiled step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

TRIES = 4  # drawn negatives of which the first that the user did not take counts


class Taken(NamedTuple):
    """The entries of a matrix [U, I] by row: `user_N`, `item_N` (ascending within a user) and `offsets` int32 [U + 1]; I is `items`."""

    user_N: jax.Array
    item_N: jax.Array
    offsets: jax.Array
    items: int


def table(taken_UI: sparse.csr_array) -> Taken:
    """On the device."""
    matrix = taken_UI.copy()
    matrix.sort_indices()
    user_N = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return Taken(*(jnp.asarray(a, jnp.int32) for a in (user_N, matrix.indices, matrix.indptr)), matrix.shape[1])


def took(taken: Taken, users, items):
    """bool, of the shape of `users` and `items` int32: whether the user took the item, by binary search in the user's entries."""
    low, high = taken.offsets[users], taken.offsets[users + 1]
    last = len(taken.item_N) - 1

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        below = (taken.item_N[jnp.minimum(middle, last)] < items) & (low < high)
        return jnp.where(below, middle + 1, low), jnp.where(below | (low >= high), high, middle)

    low, _ = jax.lax.fori_loop(0, len(taken.item_N).bit_length(), halve, (low, high))
    return (low < taken.offsets[users + 1]) & (taken.item_N[jnp.minimum(low, last)] == items)


def draw(key: jax.Array, taken: Taken, count: int):
    """(users, positives, negatives), int32 [count] each: entries uniformly, and for each an item drawn uniformly that the user did not take.

    A user who took nearly everything may, after TRIES draws, get a negative that was taken.
    """
    entry_key, item_key = jax.random.split(key)
    entries = jax.random.randint(entry_key, (count,), 0, len(taken.item_N))
    users = taken.user_N[entries]
    drawn = jax.random.randint(item_key, (count, TRIES), 0, taken.items)
    known = took(taken, jnp.broadcast_to(users[:, None], drawn.shape), drawn)
    negatives = jnp.take_along_axis(drawn, jnp.argmin(known, axis=1)[:, None], axis=1)[:, 0]
    return users, taken.item_N[entries], negatives
