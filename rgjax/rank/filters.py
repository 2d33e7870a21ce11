"""Seen items of users as arrays of one shape, and how they are hidden in scores on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse


class Seen:
    """The entries of a matrix [U, I], for chunks of `rows` users and `chunk` items; the last chunk of items ends at `items`.

    All chunks of users get arrays of the same shapes, so that one program serves them.
    """

    def __init__(self, seen_UI: sparse.csr_array, rows: int, chunk: int, items: int):
        self.seen, self.rows, self.chunk, self.items = seen_UI, rows, chunk, items
        self.chunks = -(-items // chunk)
        starts = range(0, seen_UI.shape[0], rows)
        self.most = _power(max(np.bincount(self._entries(s)[1] // chunk, minlength=1).max() for s in starts))
        self.longest = _power(np.diff(seen_UI.indptr).max(initial=1))

    def _entries(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        offsets = self.seen.indptr[start : start + self.rows + 1]
        return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), self.seen.indices[offsets[0] : offsets[-1]]

    def of(self, start: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """((rows, columns) of each chunk of items, int32 [chunks, P]; places int32 [rows, L]) for the users from `start`.

        Columns are within the chunk; places count all chunks one after the other, ascending in no order. What pads lies outside.
        """
        row, item = self._entries(start)
        number = item // self.chunk
        column = item - np.minimum(number * self.chunk, self.items - self.chunk)
        order = np.argsort(number, kind="stable")
        slot = np.arange(len(row)) - np.searchsorted(number[order], number[order])
        rows, columns = np.zeros((self.chunks, self.most), np.int32), np.full((self.chunks, self.most), self.chunk, np.int32)
        rows[number[order], slot], columns[number[order], slot] = row[order], column[order]
        places = np.full((self.rows, self.longest), self.chunks * self.chunk, np.int32)
        places[row, np.arange(len(row)) - np.searchsorted(row, row)] = number * self.chunk + column
        return (rows, columns), places


def padded(seen_BI: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) int32 [P] of the entries; P is a power of two, what pads lies outside."""
    row = np.repeat(np.arange(seen_BI.shape[0]), np.diff(seen_BI.indptr))
    size = _power(len(row))
    rows, columns = np.zeros(size, np.int32), np.full(size, seen_BI.shape[1], np.int32)
    rows[: len(row)], columns[: len(row)] = row, seen_BI.indices
    return rows, columns


def hide(scores_BC: jax.Array, seen: tuple[jax.Array, jax.Array] | None) -> jax.Array:
    """-inf at (rows, columns)."""
    return scores_BC if seen is None else scores_BC.at[seen].set(-jnp.inf, mode="drop")


def hide_in_blocks(scores_BM: jax.Array, chosen_BK: jax.Array, places_BL: jax.Array, block: int) -> jax.Array:
    """-inf at those of `places_BL` that lie in the blocks `chosen_BK` (ascending), whose scores stand one after the other."""
    found_BL = jax.vmap(jnp.searchsorted)(chosen_BK, places_BL // block)
    inside = jnp.take_along_axis(chosen_BK, jnp.minimum(found_BL, chosen_BK.shape[1] - 1), axis=1) == places_BL // block
    columns_BL = jnp.where(inside, found_BL * block + places_BL % block, scores_BM.shape[1])
    return scores_BM.at[jnp.arange(len(scores_BM))[:, None], columns_BL].set(-jnp.inf, mode="drop")


def _power(number: int) -> int:
    return 1 << max(int(number) - 1, 0).bit_length()
