"""A trained model of bundles as a recommender: what completes a set, and which bundles suit a user."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.bundle_sets import BundleSets
from rgjax.models.build import ModelFactory
from rgjax.models.bundle import PARTS, BundleModel
from rgjax.nn.segments import MASKED
from rgjax.parallel import sharding


@dataclasses.dataclass(frozen=True, eq=False)
class BundleRecommender:
    """`sets` tells what users had; `items` is the size of the catalogue I; `rows` sets are scored at once."""

    factory: ModelFactory
    params: dict
    sets: BundleSets
    items: int
    rows: int = 64

    @functools.cached_property
    def _programs(self):
        """(views, parts and held items of a batch of sets; how the sets of one batch suit the users of another), compiled."""

        def run(params, batch):
            model: BundleModel = self.factory.model(params)
            table = model.table()
            views = model.views(batch, table)
            parts = jnp.stack(list(model.parts(views, table).values()), 1)[:, :, : self.items]
            return views, parts, views.held[:, : self.items]

        where = sharding.readable(self.params)
        match = lambda params, users, bundles: self.factory.model(params).matches(users, bundles)
        return jax.jit(run, out_shardings=where), jax.jit(match, out_shardings=where)

    def using(self, params: dict) -> BundleRecommender:
        """The same with other weights, without compiling again."""
        other = dataclasses.replace(self, params=params)
        other.__dict__["_programs"] = self._programs
        return other

    def _parts(self, rows: Sequence[dict[str, np.ndarray]]):
        """(views, parts, held) of each chunk of rows, and how many of its rows are asked for."""
        for at in range(0, len(rows), self.rows):
            part = list(rows[at : at + self.rows])
            batch = {name: np.stack([row[name] for row in part + part[:1] * (self.rows - len(part))]) for name in part[0]}
            yield (*self._programs[0](self.params, batch), len(part))

    def completions(self, rows: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """float32 [N, I]: scores of all items beside the sets of `rows` (`BundleSets.row`); those in the set score far below all others."""
        found = [np.asarray(parts.sum(1) + MASKED * held)[:count] for _, parts, held, count in self._parts(rows)]
        return np.concatenate(found) if found else np.zeros((0, self.items), np.float32)

    def explained(self, row: dict[str, np.ndarray], chosen: Sequence[int]) -> list[dict[str, float]]:
        """Of each chosen item, the parts that its score beside one set is the sum of, by name."""
        parts = np.asarray(next(self._parts([row]))[1])[0]
        return [{name: float(parts[n, item]) for n, name in enumerate(PARTS)} for item in chosen]

    def for_users(self, users: Sequence[dict[str, np.ndarray]], bundles: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """float32 [U, N]: how well the sets of the rows `bundles` suit the users of the rows `users`."""
        asked = [(views, count) for views, _, _, count in self._parts(users)]
        found = [np.zeros((len(users), 0), np.float32)]
        for views, _, _, n in self._parts(bundles):
            found.append(np.concatenate([np.asarray(self._programs[1](self.params, other, views))[:count, :n] for other, count in asked]))
        return np.concatenate(found, 1)
