"""A learned mixture of recommenders, whose few weights can be read.

A user's scores by each part are made comparable (centred and scaled over the catalogue), and the mixture is a softmax over the items of
sum over parts of weight x score. The weights maximise the likelihood of held-out items that no part was fitted on: a convex problem, solved
by L-BFGS to its optimum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank.recommender import HistoryRecommender, Recommender

CANDIDATES = 500  # of each part, and the held-out item, among which the weights are fitted
STEPS = 200
PENALTY = 1e-4  # L2 on the weights: two parts that always agree share one


@dataclasses.dataclass(frozen=True, eq=False)
class Hybrid:
    """`parts` by name, and a weight for each."""

    parts: Mapping[str, Recommender]
    weights: Mapping[str, float]

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: the weighted sum of the parts' comparable scores, for users the parts know."""
        return sum(self.weights[name] * comparable(part.scores(users)) for name, part in self.parts.items())


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """A recommender whose users are known by the events `seen`: `scores` then follows these, where the method allows it."""

    part: Recommender
    seen: Interactions

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        if isinstance(self.part, HistoryRecommender):
            return self.part.from_histories([self.seen.history(u) for u in users])
        return self.part.scores(users)


def comparable(scores_BI) -> jax.Array:
    """Each user's scores with mean 0 and variance 1 over the catalogue; zeros where all are alike."""
    scores_BI = jnp.asarray(scores_BI)
    centred = scores_BI - scores_BI.mean(1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), 1, keepdims=True))
    return jnp.where(deviation > 1e-9, centred / jnp.maximum(deviation, 1e-9), 0.0)


def fit(parts: Mapping[str, Recommender], seen: Interactions, held_U: np.ndarray, most: int = 4096, seed: int = 0) -> Hybrid:
    """The weights by the held-out items of at most `most` users (item numbers [U], -1: none); `seen` are the events that they knew before.

    Raises UserError without a held-out item.
    """
    asked = np.flatnonzero(held_U >= 0)
    if not len(asked):
        raise UserError("The hybrid learns its weights from validation events and there are none; hold some out, or leave it out.")
    asked = np.sort(np.random.default_rng(seed).permutation(asked)[:most])
    features, place = [], []
    for at in range(0, len(asked), 256):
        users = asked[at : at + 256]
        found, where = _candidates([comparable(part.scores(users)) for part in parts.values()], held_U[users], seen, users)
        features.append(found), place.append(where)
    weights = maximum_likelihood(np.concatenate(features), np.concatenate(place))
    return Hybrid(parts, dict(zip(parts, map(float, weights), strict=True)))


def _candidates(scores: Sequence[jax.Array], held_B: np.ndarray, seen: Interactions, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [B, C, P] of the parts' scores of candidates, place of the held-out item among them): the items that the parts' mean puts first.

    The candidates are chosen without looking at the held-out item, which joins them in the last place where it is not among them.
    """
    stacked = np.stack([np.array(s) for s in scores], -1)
    total = stacked.mean(-1)
    known = seen.matrix[users]
    rows = np.repeat(np.arange(len(users)), np.diff(known.indptr))
    again = known.indices == held_B[rows]
    total[rows[~again], known.indices[~again]] = -np.inf
    count = min(CANDIDATES, total.shape[1])
    chosen = np.argpartition(-total, count - 1, axis=1)[:, :count]
    hit = chosen == held_B[:, None]
    place = np.where(hit.any(1), hit.argmax(1), count - 1)
    chosen[np.arange(len(users)), place] = held_B
    found = np.take_along_axis(stacked, chosen[..., None], axis=1)
    found[~np.isfinite(np.take_along_axis(total, chosen, axis=1))] = -1e3  # fewer unseen items than candidates
    return found, place


def maximum_likelihood(features_NCP: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """float32 [P]: weights w that maximise the mean log softmax over C of features w at `place_N`, less PENALTY |w|^2."""
    features, place = jnp.asarray(features_NCP, jnp.float32), jnp.asarray(place_N)

    def loss(w):
        logits = features @ w
        picked = jnp.take_along_axis(logits, place[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked) + PENALTY * jnp.sum(w**2)

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    @jax.jit
    def step(w, state):
        value, grad = value_and_grad(w, state=state)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(w, updates), state, jnp.linalg.norm(grad)

    w = jnp.full(features.shape[-1], 1.0 / features.shape[-1])
    state = tx.init(w)
    for _ in range(STEPS):
        w, state, size = step(w, state)
        if float(size) < 1e-5:
            break
    return np.asarray(w)
