"""A learned mixture of recommenders, whose few weights can be read.

A user's scores by each part are made comparable (centred and scaled over the catalogue, large ones compressed), and the mixture is a
softmax over the items of the sum over parts of weight x score. The weights maximise the likelihood of held-out items that no part was
fitted on: a convex problem, solved by L-BFGS to its optimum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank.recommender import HistoryRecommender, Recommender, by_seen

CANDIDATES = 4000  # items drawn for a user, beside the held-out one, where there are more
STEPS = 200
PENALTY = 1e-4  # L2 on the weights: two parts that always agree share one


@dataclasses.dataclass(frozen=True, eq=False)
class Hybrid:
    """`parts` by name, and a weight for each."""

    parts: Mapping[str, Recommender]
    weights: Mapping[str, float]

    def parts_of(self, users: np.ndarray) -> dict[str, jax.Array]:
        """float32 [B, I] by name: the parts' comparable scores, for users the parts know."""
        return {name: comparable(part.scores(users)) for name, part in self.parts.items()}

    def total(self, parts: Mapping[str, jax.Array]) -> jax.Array:
        """float32 [B, I]: the weighted sum of what `parts_of` gave."""
        return sum(self.weights[name] * scores for name, scores in parts.items())

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: the weighted sum of the parts' comparable scores, for users the parts know."""
        return self.total(self.parts_of(users))


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """A recommender whose users are known by the events `seen`: `scores` then follows these, where the method allows it."""

    part: Recommender
    seen: Interactions

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        if isinstance(self.part, HistoryRecommender):
            return by_seen(self.part, self.seen, users)
        return self.part.scores(users)


def comparable(scores_BI) -> jax.Array:
    """Each user's scores with mean 0 and variance 1 over the catalogue, then sign(z) log(1 + |z|); zeros where all are alike.

    The logarithm is for counts, most of which are 0 and few very large, beside logits, which are logarithms already.
    """
    scores_BI = jnp.asarray(scores_BI)
    centred = scores_BI - scores_BI.mean(1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), 1, keepdims=True))
    least = 1e-6 * jnp.max(jnp.abs(scores_BI), axis=1, keepdims=True)  # below it differences are rounding
    z_BI = jnp.where(deviation > least, centred / jnp.maximum(deviation, 1e-30), 0.0)
    return jnp.sign(z_BI) * jnp.log1p(jnp.abs(z_BI))


def fit(parts: Mapping[str, Recommender], seen: Interactions, held_U: np.ndarray, most: int = 1024, seed: int = 0) -> Hybrid:
    """The weights by the held-out items of at most `most` users (item numbers [U], -1: none); `seen` are the events that they knew before.

    Raises UserError without a held-out item.
    """
    asked = np.flatnonzero(held_U >= 0)
    if not len(asked):
        raise UserError("The hybrid learns its weights from validation events and there are none; hold some out, or leave it out.")
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.permutation(asked)[:most])
    features, offsets = [], []
    for at in range(0, len(asked), 256):
        users = asked[at : at + 256]
        found, offset = _candidates([comparable(part.scores(users)) for part in parts.values()], held_U[users], seen.matrix[users], rng)
        features.append(found), offsets.append(offset)
    weights = maximum_likelihood(np.concatenate(features), np.concatenate(offsets))
    return Hybrid(parts, dict(zip(parts, map(float, weights), strict=True)))


def weights_of(scores: Mapping[str, np.ndarray], held_B: np.ndarray, known_BI: sparse.csr_array, seed: int = 0) -> dict[str, float]:
    """As `fit`, of the parts' scores [B, I] themselves; items that are entries of `known_BI` are no candidates."""
    found, offset = _candidates([comparable(part) for part in scores.values()], held_B, known_BI, np.random.default_rng(seed))
    return dict(zip(scores, map(float, maximum_likelihood(found, offset)), strict=True))


def _candidates(
    scores: Sequence[jax.Array], held_B: np.ndarray, known_BI: sparse.csr_array, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [B, 1 + C, P] of the parts' scores of the held-out item and of C others, float32 [B, 1 + C] to add to their mixture).

    The others are drawn from the whole catalogue, whatever they score: among those that score high, a held-out item that scores low would
    teach weights below zero. What is added makes their sum stand for all others (0 where all are there), and leaves out what was seen.
    """
    items = scores[0].shape[1]
    count = min(CANDIDATES, items - 1)
    others = np.stack([rng.permutation(items - 1)[:count] for _ in held_B])
    others += others >= held_B[:, None]  # all but the held-out item
    chosen = np.concatenate([held_B[:, None], others], axis=1)
    found = np.stack([np.take_along_axis(np.asarray(s), chosen, axis=1) for s in scores], -1).astype(np.float32)
    known = np.take_along_axis(known_BI.toarray() > 0, others, axis=1)
    offset = np.where(known, -1e9, np.log((items - 1) / count))
    return found, np.concatenate([np.zeros((len(held_B), 1)), offset], axis=1).astype(np.float32)


def maximum_likelihood(features_NCP: np.ndarray, offsets_NC: np.ndarray) -> np.ndarray:
    """float32 [P]: weights w that maximise the mean over N of log softmax over C of (features w + offsets) at the first, less PENALTY |w|^2."""
    features, offsets = jnp.asarray(features_NCP, jnp.float32), jnp.asarray(offsets_NC)

    def loss(w):
        logits = features @ w + offsets
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[:, 0]) + PENALTY * jnp.sum(w**2)

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
