"""Two towers, over what is said of items and over what a user took: sigma(theta' f(x) + omega' g(y)), with L2.

x is the pair of user and item and f(x) the elementwise product of the two towers' vectors; y is what is said of the item and of the user's
history, and g(y) their cosine by kind of content (words of the title, each attribute, each relation of the triples, given vectors). Both are of
the pair: a part of the user alone plus a part of the item alone would rank all items alike for everybody. sigma is monotone, so items are ranked
by what it is taken of; trained is the softmax over the items, not each by itself, which ranked far worse. Omega is one weight a kind,
and says what it counts to be described like what was taken, beyond what the towers read there.

New items are scored by what is said of them, and new users by their histories.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

from rgjax.data.interactions import Interactions, attribute_values
from rgjax.errors import UserError
from rgjax.rank import bpr, towers
from rgjax.rank.described import Described, describe, padded
from rgjax.rank.recommender import as_matrix
from rgjax.rank.towers import Read, Rows, Shop, Weights

WINDOW = 50  # events of a history that are read
LEAST_STEPS = 300
_ROUND = 50  # steps between two looks at the loss
_ROWS = 256  # users, or items, that are put through a tower at once


@dataclasses.dataclass(frozen=True, eq=False)
class TwoTower:
    """Fitted `weights`; `described` items, bool `known` [I] those that somebody took, numbers of the profiles' values; `losses` every 50 steps."""

    weights: Weights
    described: Described
    known: np.ndarray
    values: dict[str, int]
    data: Interactions
    losses: np.ndarray

    def content_weights(self) -> dict[str, float]:
        """Omega by kind of content."""
        return dict(zip(self.described.kinds, map(float, self.weights.omega_K), strict=True))

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I], by the events and profiles it was fitted on."""
        return self.from_seen(self.data, users)

    def from_seen(self, seen: Interactions, users: np.ndarray) -> jax.Array:
        """float32 [B, I], by users' histories and profiles in `seen`."""
        profiles = [seen.profiles[user] for user in users] if seen.profiles else None
        return self.from_histories([seen.history(user) for user in users], profiles)

    def from_histories(self, histories: Sequence[np.ndarray], profiles: Sequence[dict] | None = None) -> jax.Array:
        """float32 [B, I], by the last WINDOW items of each history; what is popular, for an empty one without a profile."""
        lasts = [np.asarray(history)[-WINDOW:] for history in histories]
        counts = as_matrix(lasts, len(self.known), repeats=True)
        taste_BF = sparse.diags_array(1 / np.maximum(counts.sum(axis=1), 1)) @ counts @ self.described.rows_IF
        users_BD = self._users(lasts, taste_BF, rows_of(profiles or [{}] * len(histories), self.values))
        omega_F = np.asarray(self.weights.omega_K)[self.described.kind_F]
        alike_BI = (taste_BF @ sparse.diags_array(omega_F)) @ self.described.rows_IF.T
        return (users_BD * self.weights.theta_D) @ self.items_ID.T + jnp.asarray(alike_BI.toarray(), jnp.float32)

    def _users(self, lasts: Sequence[np.ndarray], taste_BF: sparse.csr_array, profile_BG: sparse.csr_array) -> jax.Array:
        item, there = np.zeros((len(lasts), WINDOW), np.int32), np.zeros((len(lasts), WINDOW), bool)
        for row, last in enumerate(lasts):
            item[row, : len(last)], there[row, : len(last)] = last[::-1], True
        read = (item, there, self.known[item])
        run = lambda rows: _user_tower(self.weights, Read(*(c[rows] for c in read), taste_BF[rows].toarray(), profile_BG[rows].toarray()))
        return _in_rows(run, len(lasts), self.weights.theta_D.shape[0])

    @functools.cached_property
    def items_ID(self) -> jax.Array:
        """float32 [I, D]: the item tower's vectors of all items."""
        said = self.described.rows_IF
        run = lambda items: _item_tower(self.weights, items, said[items].toarray(), self.known[items].astype(np.float32))
        return _in_rows(run, len(self.known), self.weights.theta_D.shape[0])


_user_tower, _item_tower = jax.jit(towers.user_tower), jax.jit(towers.item_tower)


def _in_rows(run, count: int, width: int) -> jax.Array:
    """`run` on numbers 0 to count - 1, _ROWS at a time so that one program is compiled; the last are filled up with the last number."""
    parts = [run(np.minimum(np.arange(at, at + _ROWS), count - 1)) for at in range(0, count, _ROWS)]
    return jnp.concatenate(parts)[:count] if parts else jnp.zeros((0, width))


def rows_of(profiles: Sequence[dict], values: Mapping[str, int]) -> sparse.csr_array:
    """float32 [B, G]: 1 where a profile has the value 'name=value' of that number."""
    held = [{values[v] for name in profile for one in attribute_values(profile, name) if (v := f"{name}={one}") in values} for profile in profiles]
    return as_matrix([np.array(sorted(numbers), np.int64) for numbers in held], len(values))


def _values(data: Interactions) -> dict[str, int]:
    """A number for each 'name=value' that several users with events have in their profiles, in the order of their names."""
    active = set(np.unique(data.user).tolist())
    found: dict[str, int] = {}
    for user, profile in enumerate(data.profiles):
        for value in {f"{name}={one}" for name in profile for one in attribute_values(profile, name)} if user in active else ():
            found[value] = found.get(value, 0) + 1
    return {value: number for number, value in enumerate(sorted(v for v, count in found.items() if count > 1))}


@functools.partial(jax.jit, static_argnames=("batch", "negatives", "steps"), donate_argnums=0)
def _steps(state, keys, shop: Shop, batch: int, negatives: int, penalty, rate, steps: int):
    optimizer = _optimizer(rate, steps)

    def step(state, key):
        weights, moments = state
        (_, told), gradients = jax.value_and_grad(towers.batch_loss, has_aux=True)(weights, shop, key, batch, negatives, penalty)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(weights, updates), moments), told

    state, losses = jax.lax.scan(step, state, keys)
    return state, losses.mean()


def _optimizer(rate, steps: int) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, steps)), optax.scale(-rate))


def fit(
    data: Interactions, vectors: Mapping[str, np.ndarray] | None = None, *, width: int = 64, hidden: int = 128, rate: float = 0.01,
    penalty: float = 1e-4, epochs: int = 1, batch: int = 512, negatives: int = 256, seed: int = 0,
) -> TwoTower:  # fmt: skip
    """Adam with the rate falling as a cosine; an epoch draws as many events as there are, and there are LEAST_STEPS steps at least.

    vectors: further features of items by name, as of images, float [I, Z], zeros for an item without one. Raises UserError where nothing is
    said of the items, and where the loss is no longer finite.
    """
    known = data.counts > 0
    described, values = describe(data, known, vectors or {}), _values(data)
    shop = shop_of(data, known, described, values)
    start, steps_key = jax.random.split(jax.random.key(seed))
    weights = _start(start, len(data.items), described, len(values), width, hidden)
    rounds = -(-max(LEAST_STEPS, epochs * -(-len(data) // batch)) // _ROUND)
    state, losses = (weights, _optimizer(rate, 1).init(weights)), []
    for keys in jax.random.split(steps_key, (rounds, _ROUND)):
        state, told = _steps(state, keys, shop, batch, negatives, penalty, rate, rounds * _ROUND)
        losses.append(float(told))
        if not bpr.finite((told, state[0])):
            raise UserError(f"The two towers diverged within {len(losses) * _ROUND} steps; lower rate={rate}.")
    return TwoTower(state[0], described, known, values, data, np.array(losses))


def shop_of(data: Interactions, known: np.ndarray, described: Described, values: Mapping[str, int]) -> Shop:
    """What training reads, on the device."""
    profiles = rows_of(data.profiles or [{}] * len(data.users), values)
    held = lambda array: jnp.asarray(array, jnp.int32)
    return Shop(
        Rows(*map(jnp.asarray, padded(described.rows_IF))), held(described.kind_F), Rows(*map(jnp.asarray, padded(profiles))),
        held(data.item), held(data.user), held(data.offsets[data.user]), held(np.flatnonzero(known)),
    )  # fmt: skip


def _start(key: jax.Array, items: int, described: Described, values: int, width: int, hidden: int) -> Weights:
    """Drawn vectors; recency falls by a twentieth an event, theta is 1 and omega 0."""
    keys, features = iter(jax.random.split(key, 7)), len(described.kind_F)
    drawn = lambda *shape, scale=0.1: jax.random.normal(next(keys), shape) * scale
    recency = jnp.broadcast_to(-0.05 * jnp.arange(WINDOW, dtype=jnp.float32)[:, None], (WINDOW, width))
    return Weights(
        drawn(items, width), drawn(features, width), drawn(values, width), recency,
        drawn(width, hidden, scale=width**-0.5), drawn(hidden, width, scale=0.1 * hidden**-0.5), jnp.full(width, 0.1, jnp.float32),
        drawn(items, width), drawn(features, width), jnp.ones(width), jnp.zeros(len(described.kinds)),
    )  # fmt: skip
