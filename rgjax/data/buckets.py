"""Length buckets: which examples form a batch, where each stands alone in its row."""

from __future__ import annotations

import numpy as np

from rgjax.errors import UserError


def shares(text: str) -> list[float]:
    """The buckets' shares of the row, ascending, the whole row last; raises UserError on anything else than shares."""
    try:
        found = {float(part) for part in text.split(",")}
    except ValueError:
        found = {-1.0}
    if not all(0 < share <= 1 for share in found):
        raise UserError(f"--buckets={text} is not understood; write shares of the row above 0 and up to 1, as 0.25,0.5,1.")
    return sorted(found | {1.0})


def bucket_of(arrays: dict[str, np.ndarray], limits: np.ndarray) -> int:
    """The smallest bucket that holds the example; the last where none does."""
    size = np.array([len(arrays["tokens"]), len(arrays.get("encoder_tokens", ()))])
    fits = (size <= limits).all(axis=1)
    return int(np.argmax(fits)) if fits.any() else len(limits) - 1


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
