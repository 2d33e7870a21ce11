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
    def _score(self):
        model = self.recommender.factory.model

        def run(params, batch, item_B):
            vectors = model(params).user_vectors(batch)
            return jnp.einsum("bd,bd->b", vectors, model(params).head()[0][item_B].astype(jnp.float32))

        return jax.jit(run)

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

    def attribute(self, user: int, item: int, method: str) -> np.ndarray:
        """float32 [N]: what each of the user's last N <= window events, in order, adds to the item's score by `method` (METHODS)."""
        events = self._events(user)
        if method == "leave_one_out":
            count = len(events["tokens"])
            kept = ~np.eye(count, dtype=bool)
            return self.score(events, np.ones((1, count), bool), item)[0] - self.score(events, kept, item)
        count, batch = len(events["tokens"]), self._batch([events])
        row = self._attention(self._params, batch) if method == "attention" else self._gradient(self._params, batch, np.full(ROWS, item))
        return np.asarray(row)[0, :count]

    def score(self, events: dict[str, np.ndarray], kept_RN: np.ndarray, item: int) -> np.ndarray:
        """float32 [R]: the item's logit from the events that each row of bool `kept_RN` keeps; a row that keeps none scores as an empty history."""
        found = []
        for at in range(0, len(kept_RN), ROWS):
            part = [{name: values[row] for name, values in events.items()} for row in kept_RN[at : at + ROWS]]
            found.append(np.asarray(self._score(self._params, self._batch(part), np.full(ROWS, item)))[: len(part)])
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def faithfulness(self, user: int, item: int, method: str, share: float, rng: np.random.Generator, draws: int = 5) -> dict[str, float]:
        """Score drops by deletion of the `share` of events (one at least, not all) that `method` puts first, and of as many random ones.

        A faithful attribution has a higher comprehensiveness and a lower sufficiency than the random ones. Empty for a single event.
        """
        events, given = self._events(user), self.attribute(user, item, method)
        count = len(given)
        if count < 2:
            return {}
        top = min(count - 1, max(1, round(share * count)))
        first = np.zeros((1 + draws, count), bool)
        first[0, np.argsort(-given, kind="stable")[:top]] = True
        for row in first[1:]:
            row[rng.permutation(count)[:top]] = True
        whole = self.score(events, np.ones((1, count), bool), item)[0]
        removed, alone = whole - self.score(events, ~first, item), whole - self.score(events, first, item)
        return {
            "comprehensiveness": float(removed[0]), "comprehensiveness_random": float(removed[1:].mean()),
            "sufficiency": float(alone[0]), "sufficiency_random": float(alone[1:].mean()),
        }  # fmt: skip

    @property
    def _params(self) -> dict:
        return self.recommender.params

    def _events(self, user: int) -> dict[str, np.ndarray]:
        found = self.recommender.found
        start, end = found.data.offsets[user : user + 2]
        return found.rows(slice(max(start, end - self.recommender.window), end))

    def _batch(self, rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        padded = [pad(row, self.recommender.window) for row in rows]
        padded += [{name: np.zeros_like(values) for name, values in padded[0].items()}] * (ROWS - len(rows))
        return {name: np.stack([row[name] for row in padded]) for name in padded[0]}
