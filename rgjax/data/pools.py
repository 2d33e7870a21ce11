"""From whom, and from near what, hard negatives are drawn: computed once from the training events, read inside the step."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rgjax.data.covisit import behaviour_vectors
from rgjax.data.interactions import Interactions

POOL = 256  # candidates kept for a user
WIDTH = 64  # entries of an item's vector in co-visit space
_BLOCK = 1024


def collaborative(data: Interactions, neighbours: int, size: int = POOL) -> np.ndarray:
    """int32 [U, size]: items that the most similar users took and this one never did, the likeliest first; -1 where there are fewer.

    Users are alike by the cosine of what they took; an item weighs the sum of the similarities of the `neighbours` users who took it.
    """
    taken = data.matrix
    norms = np.sqrt(np.maximum(taken.sum(axis=1), 1.0))
    unit = sparse.csr_array(sparse.diags_array(1 / norms) @ taken)
    pool = np.full((taken.shape[0], size), -1, np.int32)
    for at in range(0, taken.shape[0], _BLOCK):
        part = slice(at, min(at + _BLOCK, taken.shape[0]))
        alike = (unit[part] @ unit.T).toarray()
        alike[np.arange(len(alike)), np.arange(part.start, part.stop)] = 0.0
        if alike.shape[1] > neighbours:
            least = np.partition(alike, -neighbours, axis=1)[:, -neighbours, None]
            alike[alike < least] = 0.0
        weight = sparse.csr_array(alike) @ taken
        pool[part] = _largest(weight.toarray() * (taken[part].toarray() == 0), size)
    return pool


def near_items(data: Interactions, neighbours: int, width: int = WIDTH) -> np.ndarray:
    """int32 [I, neighbours]: the items nearest each in co-visit space, the nearest first; -1 where none is near.

    The space is that of `covisit.behaviour_vectors`; nearness is the cosine, and it has to be above 0.
    """
    vectors = behaviour_vectors(data.matrix, min(width, len(data.items) - 1))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found = np.full((len(unit), neighbours), -1, np.int32)
    for at in range(0, len(unit), _BLOCK):
        cosine = unit[at : at + _BLOCK] @ unit.T
        cosine[np.arange(len(cosine)), np.arange(at, at + len(cosine))] = 0.0
        found[at : at + _BLOCK] = _largest(cosine, neighbours)
    return found


def _largest(values_BI: np.ndarray, size: int) -> np.ndarray:
    """int32 [B, size]: columns of the largest positive values, in falling order, -1 where there are fewer."""
    count = min(size, values_BI.shape[1])
    top = np.argpartition(-values_BI, count - 1, axis=1)[:, :count]
    value = np.take_along_axis(values_BI, top, axis=1)
    order = np.lexsort((top, -value), axis=1)
    found = np.where(np.take_along_axis(value, order, 1) > 0, np.take_along_axis(top, order, 1), -1)
    return np.pad(found, [(0, 0), (0, size - count)], constant_values=-1).astype(np.int32)
