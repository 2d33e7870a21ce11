"""Whether the reason that can be written for an item tells that it suits: its score as a part of the mixture, weighted by held-out events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rgjax.config import DecodeConfig, RankingConfig, RecommendConfig
from rgjax.data.asked import Asked
from rgjax.data.holdout import Held, Split
from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import hybrid, topk
from rgjax.rank.evidence import Explainer
from rgjax.rank.recommender import Recommender
from rgjax.tasks.shop import recommend
from rgjax.tasks.shop.behaviour_run import BehaviourRun
from rgjax.tasks.shop.reasons import Reasons
from rgjax.tasks.shop.shortlist import Best

LISTED = 20  # items of a list whose reasons are written
K = 10  # of the metrics


def measure(run: BehaviourRun, base: Callable[[Interactions], Recommender], split: Split, how: RankingConfig, seed: int = 0) -> dict[str, float]:
    """Weights of a list's own scores and of its reasons' scores, and what ranking the list by both changes, on `how.reason_users` users.

    `base(seen)` is what makes the lists. The weights maximise the likelihood of validation items that are in their list; hr and ndcg are of the
    test's, a held-out item beyond the first 20 being lost to both. Raises UserError where no validation item is in a list.
    """
    config = RecommendConfig(workdir=run.folder, reasons=how.reasons, top=min(LISTED, len(run.shop.interactions.items)))
    writer = Reasons.open(config, DecodeConfig(), set())
    features, places = _lists(run, base(split.val.seen), split.val, split.warm(split.val), how.reason_users, writer, seed)
    inside = places >= 0
    if not inside.any():
        raise UserError(f"Of {len(places)} validation users none has the next item among the first {config.top}; raise --reason_users.")
    weights = hybrid.maximum_likelihood(*_first(features[inside], places[inside]))
    features, places = _lists(run, base(split.test.seen), split.test, split.warm(split.test), how.reason_users, writer, seed)
    found = {"users": len(places), "weight_score": float(weights[0]), "weight_reason": float(weights[1])}
    for name, by in (("alone", np.array([1.0, 0.0])), ("with_reasons", weights)):
        scores = features @ by
        own = np.take_along_axis(scores, np.maximum(places, 0)[:, None], 1)
        ranks = np.where(places >= 0, (scores >= own).sum(1), LISTED + 1)  # ties count against the held-out item
        found |= {f"hr@{K}_{name}": float((ranks <= K).mean()), f"ndcg@{K}_{name}": float(np.where(ranks <= K, 1 / np.log2(1 + ranks), 0).mean())}
    return found


def _lists(run, base: Recommender, held: Held, asked_U: np.ndarray, most: int, writer: Reasons, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(float [N, K, 2] of each listed item's score, centred over its list, and its reason's; the held-out item's place [N], -1 where not listed)."""
    users = np.flatnonzero(asked_U >= 0)
    users = np.sort(np.random.default_rng(seed).permutation(users)[:most])
    seen, count, k = held.seen, len(held.seen.users), writer.config.top
    found = topk.of_scores(base.scores(users), k, seen_BI=seen.matrix[users])
    items, scores = np.full((count, k), -1), np.zeros((count, k), np.float32)
    items[users], scores[users] = found.items, found.scores
    best = Best(items, scores, {"behaviour": scores}, {"behaviour": 1.0}, np.zeros(len(seen.items)), {})
    asked = Asked(seen, list(seen.users), [{}] * count, np.arange(count), np.zeros(count, int))
    explainer = Explainer(run.recommender(seen))
    lines = writer.written([recommend.line(explainer, asked, best, int(user), writer.config) for user in users], 0)
    reasons = np.zeros((len(users), k), np.float32)
    for row, line in enumerate(lines):
        reasons[row, : len(line["recommendations"])] = [found["parts"]["reason"] for found in line["recommendations"]]
    finite = np.where(np.isfinite(found.scores), found.scores, -1e9)
    listed = found.items == asked_U[users][:, None]
    return np.stack([finite - finite.max(1, keepdims=True), reasons], -1), np.where(listed.any(1), listed.argmax(1), -1)


def _first(features_NK2: np.ndarray, places_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the features with each held-out item first, offsets of 0)."""
    rows = np.arange(len(places_N))
    order = np.argsort(np.arange(features_NK2.shape[1])[None] != places_N[:, None], axis=1, kind="stable")
    return features_NK2[rows[:, None], order], np.zeros(order.shape, np.float32)
