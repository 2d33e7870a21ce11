"""A trained model of behaviour as a recommender: histories in, scores of all items out."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.behaviour import Events, histories, in_batches
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding


@dataclasses.dataclass(frozen=True, eq=False)
class SequenceRecommender:
    """`found` are the events that users are known by; `window` is how many of them the model reads, `rows` how many users at once."""

    factory: ModelFactory
    params: dict
    found: Events
    window: int
    rows: int = 128

    @functools.cached_property
    def _vectors(self):
        run = lambda params, batch: self.factory.model(params).user_vectors(batch)
        return jax.jit(run, out_shardings=sharding.readable(self.params))

    def user_vectors(self, users: np.ndarray) -> np.ndarray:
        """float32 [B, D] of user numbers [B]."""
        found = [np.asarray(self.vectors_of(histories(self.found, part, self.window))) for part in in_batches(users, self.rows)]
        return np.concatenate(found)[: len(users)] if len(users) else np.zeros((0, self.factory.config.width), np.float32)

    def vectors_of(self, batch: dict[str, np.ndarray]) -> jax.Array:
        """float32 [B, D] of a batch of histories, one a row."""
        return self._vectors(self.params, batch)

    @functools.cached_property
    def _table(self) -> np.ndarray:
        whole = jax.jit(lambda params: self.factory.model(params).head()[0], out_shardings=sharding.readable(self.params))
        return np.asarray(whole(self.params))[: len(self.found.data.items)]

    def item_vectors(self) -> np.ndarray:
        """float32 [I, D]: what users' vectors are multiplied by."""
        return self._table

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: logits of the next item."""
        return jnp.asarray(self.user_vectors(users)) @ jnp.asarray(self.item_vectors()).T

    def using(self, params: dict) -> SequenceRecommender:
        """The same with other weights, without compiling again."""
        other = dataclasses.replace(self, params=params)
        other.__dict__["_vectors"] = self._vectors
        return other


@dataclasses.dataclass(frozen=True, eq=False)
class KnownVectors:
    """Users whose vectors float32 [U, D] are computed already, beside those of the items [I, D]."""

    users_UD: np.ndarray
    items_ID: np.ndarray

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: logits of the next item."""
        return jnp.asarray(self.users_UD[users]) @ jnp.asarray(self.items_ID).T
