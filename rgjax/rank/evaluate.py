"""Ranks of held-out items among all unseen ones, and the lists that would be shown, in batches of users."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.interactions import Interactions
from rgjax.metrics import ranking
from rgjax.rank.recommender import Recommender, by_seen

_CELLS = 32_000_000  # scores held at once (float32): 128 MB


class Ranked(NamedTuple):
    """Of A users who are asked about: `users` [A], the held-out item's rank `ranks` [A], `lists` [A, K] of unseen items, best first, `sampled`
    [A], ranks among drawn items (zeros where none was asked for), and `confidence` [A], the first item's share in the softmax of unseen scores."""

    users: np.ndarray
    ranks: np.ndarray
    lists: np.ndarray
    sampled: np.ndarray
    confidence: np.ndarray


def held_out(
    recommender: Recommender, seen: Interactions, held_U: np.ndarray, k: int, *, from_seen: bool = False, negatives: int = 0, seed: int = 0
) -> Ranked:
    """Ranks each user's held-out item (-1: none), the user's events in `seen` left out; see `metrics.ranking.ranks`.

    from_seen: score by what `seen` tells, not as the user was fitted: what was fitted without the validation event then knows it.
    negatives: also rank among so many drawn items, for comparison with papers.
    """
    rows, parts = max(1, _CELLS // len(seen.items)), []
    asked = np.flatnonzero(held_U >= 0)
    for start in range(0, len(asked), rows):
        users = asked[start : start + rows]
        scores = np.asarray(by_seen(recommender, seen, users) if from_seen else recommender.scores(users))
        known = seen.matrix[users]
        found = ranking.ranks(scores, held_U[users], known)
        drawn = ranking.sampled_ranks(scores, held_U[users], known, negatives, seed + start) if negatives else np.zeros_like(found)
        lists, confidence = _lists(scores, known, k)
        parts.append(Ranked(users, found, lists, drawn, confidence))
    return Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _lists(scores_BI: np.ndarray, seen_BI, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(int [B, k]: unseen items by falling score, -1 where there are no more; float [B]: the first one's probability by softmax)."""
    scores_BI = np.array(scores_BI)
    scores_BI[np.repeat(np.arange(len(scores_BI)), np.diff(seen_BI.indptr)), seen_BI.indices] = -np.inf
    value, item = jax.lax.top_k(jnp.asarray(scores_BI), min(k, scores_BI.shape[1]))
    confidence = np.minimum(np.exp(np.asarray(value[:, 0] - jax.nn.logsumexp(jnp.asarray(scores_BI), axis=1))), 1.0)
    return np.where(np.isfinite(value), item, -1), confidence
