"""Ranks of held-out items among all unseen ones, in batches of users."""

from __future__ import annotations

import numpy as np

from rgjax.data.interactions import Interactions
from rgjax.metrics import ranking
from rgjax.rank.recommender import Recommender

_CELLS = 32_000_000  # scores held at once (float32): 128 MB


def held_out_ranks(
    recommender: Recommender, seen: Interactions, held_U: np.ndarray, *, from_seen: bool = False, negatives: int = 0, seed: int = 0
) -> np.ndarray:
    """int64 [U]: rank of each user's held-out item (-1: none, rank 0), the user's events in `seen` left out; see `metrics.ranking.ranks`.

    from_seen: score from the histories in `seen`, not as the user was fitted: what was fitted without the validation event then knows it.
    negatives: rank among so many drawn items instead, for comparison with papers.
    """
    rows, found = max(1, _CELLS // len(seen.items)), np.zeros(len(held_U), np.int64)
    asked = np.flatnonzero(held_U >= 0)
    for start in range(0, len(asked), rows):
        users = asked[start : start + rows]
        scores = recommender.from_histories([seen.history(u) for u in users]) if from_seen else recommender.scores(users)
        if negatives:
            found[users] = ranking.sampled_ranks(scores, held_U[users], seen.matrix[users], negatives, seed + start)
        else:
            found[users] = ranking.ranks(scores, held_U[users], seen.matrix[users])
    return found
