"""The best items for each user who is asked about: by a model of behaviour alone, or by a mixture that it is a part of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from rgjax.config import RecommendConfig
from rgjax.data.asked import Asked
from rgjax.data.interactions import build
from rgjax.errors import UserError
from rgjax.rank import hybrid, popularity, topk
from rgjax.rank.live import LiveUsers
from rgjax.rank.recommender import HistoryRecommender, LinearRecommender
from rgjax.rank.sequence import KnownVectors, SequenceRecommender
from rgjax.tasks.shop import mixture
from rgjax.tasks.shop.behaviour_run import BehaviourRun

CHUNK = 256  # users whose scores of all items are held at once, and who are followed together


@dataclasses.dataclass(frozen=True, eq=False)
class Best:
    """`items` int [N, K] with -1 where there is none, `scores` [N, K], and of which `parts` [N, K] these are the sum, times `weights`.

    A stranger's scores are of popularity alone. `share` [I] is how popular each item is, as a share of all events; `linear` are the parts
    whose scores are sums over a history.
    """

    items: np.ndarray
    scores: np.ndarray
    parts: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    share: np.ndarray
    linear: Mapping[str, LinearRecommender]


def best(run: BehaviourRun, asked: Asked, allowed_I: np.ndarray, config: RecommendConfig) -> Best:
    """Raises UserError for --models that are unknown, know only users of the shop, or can't be weighted."""
    known, everybody, k = run.recommender(asked.events), np.arange(len(asked.ids)), config.top
    seen = None if config.repeat else asked.events.matrix
    fitted = _fitted(run, config.models)
    vectors = KnownVectors(followed(known, asked) if config.follow else known.user_vectors(everybody), known.item_vectors())
    weights = {"behaviour": 1.0}
    if fitted:
        mixed = mixture.mixed({"behaviour": None, **fitted}, run, run.task.split, asked.events)
        weights = mixed.weights
        items, scores, parts = _of_mixture(hybrid.Hybrid({**mixed.parts, "behaviour": vectors}, weights), len(everybody), k, seen, allowed_I)
    else:
        found = topk.top_k(vectors.users_UD, vectors.items_ID, k, seen_UI=seen, allowed_I=allowed_I)
        items, scores = np.array(found.items), np.array(found.scores)
        parts = {"behaviour": scores.copy()}
    if asked.strangers.any():
        users = np.flatnonzero(asked.strangers)
        common = popularity.fit(run.task.split.train).from_histories([np.zeros(0, np.int64)] * len(users))
        fallback = topk.of_scores(common, k, allowed_I=allowed_I)
        items[users], scores[users] = fallback.items, fallback.scores
    counts = run.task.split.train.counts
    linear = {name: part for name, part in fitted.items() if isinstance(part, LinearRecommender)}
    return Best(items, scores, parts, weights, counts / max(counts.sum(), 1), linear)


def _fitted(run: BehaviourRun, models: str) -> dict[str, HistoryRecommender]:
    names = mixture.named(models)
    if names and run.facts["shop"].train_on_validation:
        raise UserError(f"--models={models} is weighted by the validation events, and {run.folder} was trained on them; leave it out.")
    if alone := next((name for name in names if name in mixture.OWN_USERS), None):
        raise UserError(f"--models={models} has '{alone}', which knows only users and events that it was fitted on; leave it out.")
    return {name: mixture.fit(name, run.task.split.train) for name in names}


def _of_mixture(mixed: hybrid.Hybrid, users: int, k: int, seen, allowed_I: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(items, scores, parts), [N, K] each, from the scores of all items of CHUNK users at a time."""
    items, scores, parts = [], [], {name: [] for name in mixed.parts}
    for at in range(0, users, CHUNK):
        chunk = np.arange(at, min(at + CHUNK, users))
        of = mixed.parts_of(chunk)
        found = topk.of_scores(mixed.total(of), k, seen_BI=None if seen is None else seen[chunk], allowed_I=allowed_I)
        items.append(found.items), scores.append(found.scores)
        for name, values in of.items():
            parts[name].append(np.take_along_axis(np.asarray(values), np.maximum(found.items, 0), axis=1))
    return np.concatenate(items), np.concatenate(scores), {name: np.concatenate(values) for name, values in parts.items()}


def followed(known: SequenceRecommender, asked: Asked) -> np.ndarray:
    """float32 [N, D]: each person's vector after each of their lines, of which every one but the first appends its own events."""
    _, firsts = np.unique(asked.person, return_index=True)
    order = np.argsort(asked.person, kind="stable")
    turn = np.empty(len(order), int)  # of a line among its person's
    turn[order] = np.arange(len(order)) - np.searchsorted(asked.person[order], asked.person[order])
    vectors = np.zeros((len(order), known.factory.config.width), np.float32)
    for at in range(0, len(firsts), CHUNK):
        live, own = LiveUsers(known, firsts[at : at + CHUNK]), (asked.person >= at) & (asked.person < at + CHUNK)
        for step in range(turn[own].max() + 1):
            lines = np.flatnonzero(own & (turn == step))
            if step and asked.added[lines].any():
                live.append(_new(asked, lines, at))
            vectors[lines] = live.vectors[asked.person[lines] - at]
    return vectors


def _new(asked: Asked, lines: np.ndarray, first: int):
    """The own events of some lines, by person, counted from `first`."""
    events = asked.events
    spans = [np.arange(events.offsets[line + 1] - asked.added[line], events.offsets[line + 1]) for line in lines]
    chosen, users = np.concatenate(spans), np.repeat(asked.person[lines] - first, asked.added[lines])
    columns = {name: getattr(events, name)[chosen] for name in ("item", "time", "event", "rating", "price", "quantity")}
    return build([str(p) for p in range(CHUNK)], events.items, users, **columns, events=events.events)
