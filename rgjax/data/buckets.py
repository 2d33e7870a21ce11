"""Length buckets: which examples form a batch, where each stands alone in its row."""

from __future__ import annotations

import re

import numpy as np

from rgjax.data.shape import Shape
from rgjax.errors import UserError

ALIGNED = 8  # tokens: a GPU's matrix units work on eights


def sizes(arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    """(tokens, encoder tokens) of an example."""
    return len(arrays["tokens"]), len(arrays.get("encoder_tokens", ()))


def shapes(text: str, whole: Shape, sizes_N2: np.ndarray) -> list[Shape]:
    """The buckets' rows, ascending, the `whole` row last: of its shares, as 0.25,0.5, or of a number of buckets, as 6, which are then those that
    leave the fewest slots of examples of these sizes empty. Raises UserError on anything else.
    """
    if re.fullmatch(r"[1-9]\d*", text):
        row = np.array([whole.length, whole.encoder_length])
        needed_N = np.max(sizes_N2 / np.maximum(row, 1), axis=1)
        return [whole.scaled(share) for share in fewest_slots(needed_N, int(text), ALIGNED / row.max())]
    try:
        found = {float(part) for part in text.split(",")}
    except ValueError:
        found = {-1.0}
    if not all(0 < share <= 1 for share in found):
        raise UserError(f"--buckets={text} is not understood; write how many, as 6, or shares of the row above 0 and up to 1, as 0.25,0.5,1.")
    return [whole.scaled(share) for share in sorted(found | {1.0})]


def fewest_slots(needed_N: np.ndarray, count: int, step: float) -> list[float]:
    """Of all ways to cut the row into `count` buckets at multiples of `step`, a share of it, the one whose buckets have the smallest sum over the
    examples that need these shares: ascending, 1 last. There are fewer where fewer lengths occur.

    Dynamic programming: the best m buckets up to a limit are the best m - 1 up to a smaller one, and one more.
    """
    limits, of = np.unique(np.append(np.minimum(np.ceil(needed_N / step - 1e-9) * step, 1.0), 1.0), return_inverse=True)
    below = np.append(0, np.cumsum(np.bincount(of)))  # how many examples need less than each limit
    below[-1] -= 1  # the row itself is no example
    cost, cut_before = np.where(np.arange(len(limits) + 1), np.inf, 0.0), []
    for _ in range(min(count, len(limits))):
        sums = [cost[:j] + (below[j] - below[:j]) * limits[j - 1] for j in range(1, len(limits) + 1)]
        cut_before.append([0, *(int(np.argmin(s)) for s in sums)])
        cost = np.array([np.inf, *(s.min() for s in sums)])
    found, j = [], len(limits)
    for before in reversed(cut_before):
        found.append(float(limits[j - 1]))
        j = before[j]
    return found[::-1]


def of(sizes_N2: np.ndarray, rows: list[Shape]) -> np.ndarray:
    """int [N]: the smallest of `rows` that holds each example; the last where none does."""
    limits_K2 = np.array([[row.length, row.encoder_length] for row in rows])
    fits_NK = (sizes_N2[:, None] <= limits_K2).all(axis=2)
    return np.where(fits_NK.any(axis=1), fits_NK.argmax(axis=1), len(rows) - 1)


class Plan:
    """Which examples form the i-th batch, for any i, without state: a fresh permutation of every bucket each epoch.

    What does not fill a batch of its bucket moves up to the next larger one; what is left over at the very end, less than a
    batch, waits for an epoch with better luck. `bucket` holds each example's; those from number `own` on are replayed: an epoch
    is all of the others and, of these, as many of an endless row of permutations as make `share` of the whole.
    """

    def __init__(self, bucket: np.ndarray, buckets: int, rows: int, seed: int, own: int, share: float):
        self.bucket, self.buckets, self.rows, self.seed, self.own = bucket, buckets, rows, seed, own
        self.drawn = max(1, round(own * share / (1 - share))) if len(bucket) > own else 0
        self.batches_per_epoch = (own + self.drawn) // rows
        self._cached: tuple[int, list] = (-1, [])

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        epoch, i = divmod(index, self.batches_per_epoch)
        if self._cached[0] != epoch:
            self._cached = (epoch, self._epoch(epoch, np.random.default_rng((self.seed, epoch))))
        return self._cached[1][i]

    def _epoch(self, epoch: int, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
        batches, over = [], np.array([], np.int64)
        members = np.concatenate([np.arange(self.own), self._replayed(epoch)])
        for which in range(self.buckets):
            order = rng.permutation(np.concatenate([over, members[self.bucket[members] == which]]))
            full = len(order) // self.rows * self.rows
            batches += [(which, chosen) for chosen in order[:full].reshape(-1, self.rows)]
            over = order[full:]
        return [batches[j] for j in rng.permutation(len(batches))]

    def _replayed(self, epoch: int) -> np.ndarray:
        if not self.drawn:
            return np.array([], np.int64)
        count = len(self.bucket) - self.own
        turns, places = np.divmod(np.arange(epoch * self.drawn, (epoch + 1) * self.drawn), count)
        orders = {turn: np.random.default_rng((self.seed, int(turn), 1)).permutation(count) for turn in np.unique(turns)}
        return np.array([self.own + orders[turn][place] for turn, place in zip(turns, places, strict=True)], np.int64)
