"""Why an item was recommended: how much each event of the history drove its score, and whether that is true.

Three attributions of one score to the events: the attention of the last event, gradient x input of the events' embeddings, and leave-one-out
(the score with all events less the score without this one). Attention is not a reason by itself, so each is measured by deletion (DeYoung et
al. 2020, "ERASER"): comprehensiveness is the score lost when the events said to matter most are removed, sufficiency the score lost when only
they are kept, each beside the same with as many events drawn at random.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.behaviour import pad
from rgjax.models.behaviour import at_last
from rgjax.rank.sequence import SequenceRecommender

METHODS = ("attention", "gradient", "leave_one_out")
ROWS = 64  # histories scored at once


@dataclasses.dataclass(frozen=True, eq=False)
class Explainer:
    """Attributions for a model of behaviour. Items are explained one user at a time; rows of one shape compile once."""

    recommender: SequenceRecommender

    @functools.cached_property
    def _attention(self):
        return jax.jit(lambda params, batch: self.recommender.factory.model(params).attention(batch))

    @functools.cached_property
    def _gradient(self):
        model = self.recommender.factory.model

        def run(params, batch, item_B):
            built = model(params)
            x_BTD = built.embedding(batch)
            rows = built.head()[0][item_B].astype(jnp.float32)
            total = lambda x: jnp.sum(at_last(built.read(x, batch), batch) * rows)
            return jnp.sum(jax.grad(total)(x_BTD) * x_BTD, axis=-1)

        return jax.jit(run)

    def attribute(self, user: int, items: np.ndarray, method: str) -> np.ndarray:
        """float32 [M, N]: what each of the user's last N <= window events, in order, adds to the score of each of `items` [M] by `method`.

        Attention is the same for all items. Leave-one-out reads the history N times, the others once or M times.
        """
        events = self.events(user)
        count = len(events["tokens"])
        if not len(items):
            return np.zeros((0, count), np.float32)
        if method == "leave_one_out":
            kept = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
            scores = self.score(events, kept, items)
            return (scores[:1] - scores[1:]).T
        if method == "attention":
            row = np.asarray(self._attention(self.recommender.params, self._batch([events])))[0, :count]
            return np.repeat(row[None], len(items), axis=0)
        found = []
        for at in range(0, len(items), ROWS):
            part = np.pad(items[at : at + ROWS], (0, max(0, ROWS - len(items) + at)))
            rows = self._gradient(self.recommender.params, self._batch([events] * ROWS), part)
            found.append(np.asarray(rows)[: len(items) - at, :count])
        return np.concatenate(found)

    def score(self, events: dict[str, np.ndarray], kept_RN: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float32 [R, M]: logits of `items` from the events that each row of bool `kept_RN` keeps, one at least."""
        vectors = []
        for at in range(0, len(kept_RN), ROWS):
            part = [{name: values[row] for name, values in events.items()} for row in kept_RN[at : at + ROWS]]
            vectors.append(np.asarray(self.recommender.vectors_of(self._batch(part)))[: len(part)])
        return np.concatenate(vectors) @ self.recommender.item_vectors()[items].T

    def faithfulness(self, user: int, item: int, method: str, share: float, rng: np.random.Generator, draws: int = 5) -> dict[str, float]:
        """Score drops by deletion of the `share` of events (one at least, not all) that `method` puts first, and of as many random ones.

        A faithful attribution has a higher comprehensiveness and a lower sufficiency than the random ones. Empty for a single event.
        """
        events, items = self.events(user), np.array([item])
        count = len(events["tokens"])
        if count < 2:
            return {}
        given = self.attribute(user, items, method)[0]
        top = min(count - 1, max(1, round(share * count)))
        first = np.zeros((1 + draws, count), bool)
        first[0, np.argsort(-given, kind="stable")[:top]] = True
        for row in first[1:]:
            row[rng.permutation(count)[:top]] = True
        scores = self.score(events, np.concatenate([np.ones((1, count), bool), ~first, first]), items)[:, 0]
        removed, alone = scores[0] - scores[1 : len(first) + 1], scores[0] - scores[len(first) + 1 :]
        return {
            "comprehensiveness": float(removed[0]), "comprehensiveness_random": float(removed[1:].mean()),
            "sufficiency": float(alone[0]), "sufficiency_random": float(alone[1:].mean()),
        }  # fmt: skip

    def events(self, user: int) -> dict[str, np.ndarray]:
        """The user's last events, as the model reads them."""
        found = self.recommender.found
        start, end = found.data.offsets[user : user + 2]
        return found.rows(slice(max(start, end - self.recommender.window), end))

    def _batch(self, rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        padded = [pad(row, self.recommender.window) for row in rows]
        padded += [{name: np.zeros_like(values) for name, values in padded[0].items()}] * (ROWS - len(rows))
        return {name: np.stack([row[name] for row in padded]) for name in padded[0]}
