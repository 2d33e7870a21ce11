"""The best k of all items for many users, without the matrix of all scores.

Scores are made in chunks of users x items that stay in the cache, and only the maximum of each BLOCK of neighbouring items is kept. The k
best items lie in the k blocks with the largest maxima: were one elsewhere, each of those blocks would hold an item at least as good.
Those blocks alone are scored again and sorted. Nothing is approximated; at equal scores the lower item number comes first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.errors import UserError
from rgjax.rank import filters

BLOCK = 32  # items whose maximum is kept
USERS = {"cpu": 256}  # users of a chunk
CELLS = {"cpu": 2**21}  # scores of a chunk (float32): 8 MB stay in a CPU's third-level cache
GROUP = {"cpu": 8}  # users whose blocks are scored again at once
_ELSEWHERE = (1024, 2**28, 128)  # of an accelerator: it needs large kernels, and has the memory


class Best(NamedTuple):
    """`items` int32 [U, k], best first, -1 where fewer than k remain; `scores` float32 [U, k], -inf there."""

    items: np.ndarray
    scores: np.ndarray


def top_k(users_UD, items_ID, k: int, *, bias_I=None, seen_UI: sparse.csr_array | None = None, allowed_I=None) -> Best:
    """Items by users_UD @ items_ID.T + bias_I, all float32, but those of a user's row in `seen_UI` and those where bool `allowed_I` is false.

    Scores of -inf count as not allowed. Two scores within float32 rounding of each other may change places: blocks are scored twice.
    Raises UserError when k is below 1 or above the number of items, when shapes disagree, and when the scores of a user are NaN.
    """
    items, width = np.shape(items_ID)
    count = len(users_UD)
    if np.shape(users_UD)[1] != width:
        raise UserError(f"User vectors have width {np.shape(users_UD)[1]} and item vectors {width}; give both of one model.")
    _check(k, count, items, seen_UI, allowed_I, bias_I)
    rows, chunk = _sizes(count, items)
    chunk = _up(min(chunk, items), BLOCK)
    vectors, bias = jnp.asarray(items_ID, jnp.float32), _bias(items, bias_I, allowed_I)
    if more := max(_up(items, BLOCK), chunk) - items:
        vectors, bias = jnp.pad(vectors, ((0, more), (0, 0))), jnp.pad(bias, (0, more), constant_values=-jnp.inf)
    seen = filters.Seen(seen_UI, rows, chunk, len(vectors)) if seen_UI is not None else None
    run = functools.partial(_of_vectors, k=k, chunk=chunk, group=_per("group"))

    def part(start: int):
        users = np.zeros((rows, width), np.float32)
        own = np.asarray(users_UD[start : start + rows], np.float32)
        users[: len(own)] = own
        return run(users, vectors, bias, seen.of(start) if seen else None)

    return _gathered(part, count, rows)


def of_scores(scores_BI, k: int, *, seen_BI: sparse.csr_array | None = None, allowed_I=None) -> Best:
    """Of scores that are there already, float [B, I]; otherwise as `top_k`."""
    scores_BI = jnp.asarray(scores_BI, jnp.float32)
    count, items = scores_BI.shape
    _check(k, count, items, seen_BI, allowed_I, None)
    return _finished(*_of_matrix(scores_BI, _bias(items, None, allowed_I), filters.padded(seen_BI) if seen_BI is not None else None, k=k))


def best_of_rows(scores_BC, k: int):
    """(values [B, k], places int32 [B, k]), as jax.lax.top_k, but fast on wide rows; 0 and -0 are equal."""
    rows, width = scores_BC.shape
    scores_BC = jnp.pad(scores_BC, ((0, 0), (0, _up(width, BLOCK) - width)), constant_values=-jnp.inf)
    blocks_BNS = scores_BC.reshape(rows, -1, BLOCK)
    chosen_BK = _blocks(blocks_BNS.max(axis=-1), k)
    values = jnp.take_along_axis(blocks_BNS, chosen_BK[..., None], axis=1).reshape(rows, -1)
    values, places = jax.lax.top_k(_one_zero(values), k)
    return values, jnp.take_along_axis(chosen_BK, places // BLOCK, axis=1) * BLOCK + places % BLOCK


def _blocks(maxima_BN, k: int):
    """The k blocks (all, if fewer) with the largest maxima, in ascending order, so that equal scores stay in order of items."""
    return jnp.sort(jax.lax.top_k(_one_zero(maxima_BN), min(k, maxima_BN.shape[1]))[1], axis=-1)


def _one_zero(values):
    return jnp.where(values == 0, 0.0, values)  # top_k would put 0 before -0


@functools.partial(jax.jit, static_argnames=("k", "chunk", "group"))
def _of_vectors(users_BD, items_ID, bias_I, seen, *, k: int, chunk: int, group: int):
    """seen: None, or what filters.Seen gives for these users."""
    maxima_BN = _maxima(users_BD, items_ID, bias_I, seen and seen[0], chunk)
    chosen_BK = _blocks(maxima_BN, k)
    a_chunk, last = chunk // BLOCK, len(items_ID) - chunk  # the last chunk overlaps the one before, so that all have one shape
    number_BK = chosen_BK // a_chunk
    block_BK = jnp.minimum(number_BK * a_chunk, last // BLOCK) + chosen_BK % a_chunk
    vectors_NSD, bias_NS = items_ID.reshape(-1, BLOCK, items_ID.shape[1]), bias_I.reshape(-1, BLOCK)
    again = lambda row: jnp.sum(vectors_NSD[row[1]] * row[0], axis=-1)  # no matrix product: those of one user are too narrow
    dots_BKS, bias_BKS = jax.lax.map(again, (users_BD, block_BK), batch_size=group), bias_NS[block_BK]
    item_BM = (block_BK[..., None] * BLOCK + jnp.arange(BLOCK)).reshape(len(users_BD), -1)
    allowed_BKS = (bias_BKS > -jnp.inf) & (block_BK >= number_BK * a_chunk)[..., None]
    scores_BM = jnp.where(allowed_BKS, dots_BKS + bias_BKS, -jnp.inf).reshape(item_BM.shape)
    if seen is not None:
        scores_BM = filters.hide_in_blocks(scores_BM, chosen_BK, seen[1], BLOCK)
    scores, places = jax.lax.top_k(_one_zero(scores_BM), k)
    return scores, jnp.take_along_axis(item_BM, places, axis=1)


def _maxima(users_BD, items_ID, bias_I, seen, chunk: int):
    """[B, N]: of each block of all chunks; what is overlapped, hidden or not allowed counts -inf."""
    count, rows = -(-len(items_ID) // chunk), len(users_BD)

    def one(_, given):
        n, hidden = given
        start = jnp.minimum(n * chunk, len(items_ID) - chunk)
        vectors = jax.lax.dynamic_slice_in_dim(items_ID, start, chunk)
        with jax.default_matmul_precision("highest"):
            scores = jnp.einsum("bd,cd->bc", users_BD, vectors)
        scores = filters.hide(scores, hidden)
        bias = jnp.where(start + jnp.arange(chunk) >= n * chunk, jax.lax.dynamic_slice_in_dim(bias_I, start, chunk), -jnp.inf)
        scores = jnp.where(bias > -jnp.inf, scores + bias, -jnp.inf)
        return None, scores.reshape(rows, -1, BLOCK).max(axis=-1)

    _, found_CBN = jax.lax.scan(one, None, (jnp.arange(count), seen))
    return jnp.swapaxes(found_CBN, 0, 1).reshape(rows, -1)


@functools.partial(jax.jit, static_argnames=("k",))
def _of_matrix(scores_BI, bias_I, seen, *, k: int):
    return best_of_rows(jnp.where(bias_I > -jnp.inf, filters.hide(scores_BI, seen), -jnp.inf), k)


def _gathered(part: Callable, count: int, rows: int) -> Best:
    """Of all chunks of users; the next is under way while one is copied."""
    found, waiting = [], None
    for start in range(0, count, rows):
        begun = part(start)
        if waiting is not None:
            found.append(tuple(map(np.asarray, waiting)))
        waiting = begun
    if waiting is not None:
        found.append(tuple(map(np.asarray, waiting)))
    return _finished(*(np.concatenate(parts)[:count] for parts in zip(*found, strict=True)))


def _finished(scores, items) -> Best:
    scores, items = np.asarray(scores), np.asarray(items)
    if (wrong := np.isnan(scores).any(axis=1)).any():
        raise UserError(f"The scores of row {int(wrong.argmax())} are NaN; the model's vectors must be finite.")
    return Best(np.where(scores > -np.inf, items, -1).astype(np.int32), scores)


def _bias(items: int, bias_I, allowed_I):
    bias = jnp.zeros(items) if bias_I is None else jnp.asarray(bias_I, jnp.float32)
    return bias if allowed_I is None else jnp.where(jnp.asarray(allowed_I, bool), bias, -jnp.inf)


def _per(what: str) -> int:
    """A size for this backend."""
    names = ("users", "cells", "group")
    return dict(zip(names, (USERS, CELLS, GROUP), strict=True))[what].get(jax.default_backend(), _ELSEWHERE[names.index(what)])


def _sizes(count: int, items: int) -> tuple[int, int]:
    """(users, items) of a chunk; a small catalogue lets more users into one."""
    users, cells = _per("users"), _per("cells")
    rows = min(max(users, cells // max(items, 1)), max(count, 1))
    return rows, _up(max(cells // max(rows, min(users, 64)), BLOCK), BLOCK)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _check(k: int, users: int, items: int, seen, allowed_I, bias_I) -> None:
    if not 1 <= k <= items:
        raise UserError(f"k={k} must be between 1 and {items}, the number of items.")
    if not users:
        raise UserError("There are no users to recommend to.")
    if seen is not None and tuple(seen.shape) != (users, items):
        raise UserError(f"Seen items have shape {tuple(seen.shape)} and there are {users} users and {items} items.")
    for name, given in (("allowed", allowed_I), ("bias", bias_I)):
        if given is not None and np.shape(given) != (items,):
            raise UserError(f"{name} has shape {np.shape(given)} and there are {items} items.")
