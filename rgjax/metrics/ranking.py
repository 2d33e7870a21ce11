"""Did the ranking find what the user took next: HR, recall, precision, NDCG, MRR and MAP at k, one value a user.

Ties are broken against the model: a held-out item ranks behind every candidate that scores as high, so that a constant scorer finds
nothing. A NaN counts as higher than everything but as the score of a held-out item, where it is lower: it never helps. The headline is the
rank among all items (Krichene & Rendle 2020, "On sampled metrics for item recommendation"); `sampled_ranks` exists for comparison with papers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from rgjax.errors import UserError
from rgjax.metrics import bootstrap

NAMES = ("hr", "recall", "precision", "ndcg", "mrr", "map")


def discounts(k: int) -> np.ndarray:
    """float64 [k]: 1 / log2(1 + rank) of ranks 1..k."""
    return 1.0 / np.log2(np.arange(2, k + 2))


def ranks(scores_BI, held_B, seen_BI: sparse.csr_array | None = None) -> np.ndarray:
    """int64 [B]: the rank, from 1, of each user's held-out item among all items the user has not seen; 0 where `held_B` is -1.

    scores_BI: float, higher is better. seen_BI: entries are no candidates; a held-out item stays one even where the user knew it.
    """
    scores_BI, held_B = np.asarray(scores_BI), np.asarray(held_B)
    rows = np.arange(len(held_B))
    own_B = np.nan_to_num(scores_BI[rows, np.maximum(held_B, 0)], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ahead_B = scores_BI.shape[1] - (scores_BI < own_B[:, None]).sum(axis=1)  # itself among them, hence ranks from 1
    if seen_BI is not None:
        row, column = _entries(seen_BI)
        counted = ~(scores_BI[row, column] < own_B[row]) & (column != held_B[row])
        ahead_B = ahead_B - np.bincount(row[counted], minlength=len(rows))
    return np.where(held_B >= 0, ahead_B, 0).astype(np.int64)


def sampled_ranks(scores_BI, held_B, seen_BI: sparse.csr_array, negatives: int = 100, seed: int = 0) -> np.ndarray:
    """int64 [B]: as `ranks`, among `negatives` items drawn without replacement from those neither seen nor held out, only.

    For comparison with papers that report it: it inflates HR@10 many times over and can turn the order of models round (Krichene & Rendle
    2020). Label what comes of it "sampled". Users with fewer unseen items are ranked among all of them.
    """
    scores_BI, held_B, rng = np.asarray(scores_BI), np.asarray(held_B), np.random.default_rng(seed)
    found = np.zeros(len(held_B), np.int64)
    for b, held in enumerate(held_B):
        if held < 0:
            continue
        known = np.union1d(seen_BI.indices[seen_BI.indptr[b] : seen_BI.indptr[b + 1]], [held])
        drawn = _unseen(known, scores_BI.shape[1], negatives, rng)
        own = scores_BI[b, held]
        found[b] = 1 + (~(scores_BI[b, drawn] < own)).sum() if not np.isnan(own) else 1 + len(drawn)
    return found


def _unseen(known: np.ndarray, items: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different items outside the sorted `known`, or all: numbers of the gaps, moved up past what is known."""
    free = items - len(known)
    gaps = rng.choice(free, min(count, free), replace=False, shuffle=False)
    return gaps + np.searchsorted(known - np.arange(len(known)), gaps, side="right")


def at_ranks(ranks, k: int) -> dict[str, np.ndarray]:
    """Each metric of NAMES at k, float64 [B], from `ranks` [B] or [B, M] of the relevant items (0: none); NaN for users without any.

    HR is whether one of them is in the first k, recall their share found, precision their share of the k, MRR 1 / the first one's rank (0
    beyond k), MAP the mean over min(k, relevant items) of the precision at each one found, NDCG the sum of 1 / log2(1 + rank) of those
    found over its largest possible value.
    """
    _check(k)
    ranks_BM = np.asarray(ranks)
    ranks_BM = ranks_BM[:, None] if ranks_BM.ndim == 1 else ranks_BM
    hits_Bk = np.zeros((len(ranks_BM), k), bool)
    row, column = np.nonzero((ranks_BM > 0) & (ranks_BM <= k))
    hits_Bk[row, ranks_BM[row, column] - 1] = True
    return _of_hits(hits_Bk, (ranks_BM > 0).sum(axis=1))


def _of_hits(hits_Bk: np.ndarray, relevant_B: np.ndarray) -> dict[str, np.ndarray]:
    k, gains = hits_Bk.shape[1], discounts(hits_Bk.shape[1])
    best_B = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(relevant_B, k)]
    hit_B, place = hits_Bk.any(axis=1), np.arange(1, k + 1)
    precisions_Bk = np.cumsum(hits_Bk, axis=1) / place
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "hr": hit_B.astype(float), "recall": hits_Bk.sum(axis=1) / relevant_B, "precision": hits_Bk.sum(axis=1) / k,
            "ndcg": hits_Bk @ gains / best_B, "mrr": np.where(hit_B, 1.0 / (1 + hits_Bk.argmax(axis=1)), 0.0),
            "map": (precisions_Bk * hits_Bk).sum(axis=1) / np.minimum(relevant_B, k),
        }  # fmt: skip
    return {name: np.where(relevant_B > 0, found[name], np.nan) for name in NAMES}


def named(values: Mapping[str, np.ndarray], k: int, negatives: int = 0) -> dict[str, np.ndarray]:
    """The same arrays under the names they are told by: 'ndcg@10', or 'ndcg@10_sampled100' where ranks are among drawn negatives."""
    return {f"{name}@{k}" + (f"_sampled{negatives}" if negatives else ""): array for name, array in values.items()}


def means(values: Mapping[str, np.ndarray], resamples: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Mean over users of each array as {"value", "low", "high"}, a 95 % bootstrap interval over users; users with NaN are left out."""
    return bootstrap.intervals({name: bootstrap.mean(array) for name, array in values.items()}, resamples, seed)


def _entries(matrix: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the stored entries, each once."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    if matrix.has_canonical_format:
        return row, matrix.indices
    pairs = np.unique(np.stack([row, matrix.indices]), axis=1)
    return pairs[0], pairs[1]


def _check(k: int) -> None:
    if k < 1:
        raise UserError(f"k={k} is no length of a list; give 1 or more.")
