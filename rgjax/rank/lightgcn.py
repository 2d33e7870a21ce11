"""LightGCN: vectors of users and items, smoothed over who took what (He et al. 2020)."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import bpr, negatives


class Graph(NamedTuple):
    """The entries of a matrix [U, I], twice: by user and by item, with weights 1 / sqrt(degree of user * degree of item)."""

    by_user: tuple[jax.Array, jax.Array, jax.Array]  # user, item int32 [N], weight float32 [N], users ascending
    by_item: tuple[jax.Array, jax.Array, jax.Array]  # the same with items ascending


@dataclasses.dataclass(frozen=True, eq=False)
class LightGcn:
    """Smoothed `users_UD` and `items_ID` float32, and the mean BPR loss of each epoch."""

    users_UD: jax.Array
    items_ID: jax.Array
    losses: np.ndarray

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        return self.users_UD[jnp.asarray(users)] @ self.items_ID.T


def graph(taken_UI: sparse.csr_array) -> Graph:
    """Of a matrix without repeated entries; values do not count."""
    user = np.repeat(np.arange(taken_UI.shape[0]), np.diff(taken_UI.indptr))
    item = taken_UI.indices
    degrees = np.bincount(user, minlength=taken_UI.shape[0]), np.bincount(item, minlength=taken_UI.shape[1])
    weight = 1 / np.sqrt(degrees[0][user].astype(float) * degrees[1][item])
    order = np.argsort(item, kind="stable")
    held = lambda *columns: (*(jnp.asarray(c, jnp.int32) for c in columns[:2]), jnp.asarray(columns[2], jnp.float32))
    return Graph(held(user, item, weight), held(user[order], item[order], weight[order]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def propagate(vectors, edges: Graph, layers: int):
    """Mean over 0..layers of A^l E: `vectors` is (users [U, D], items [I, D]), A = D^-1/2 [[0, R], [R', 0]] D^-1/2 of the matrix R."""
    sums = users, items = vectors
    for _ in range(layers):
        user, item, weight = edges.by_user
        new_users = jax.ops.segment_sum(items[item] * weight[:, None], user, len(users), indices_are_sorted=True)
        user, item, weight = edges.by_item
        items = jax.ops.segment_sum(users[user] * weight[:, None], item, len(items), indices_are_sorted=True)
        users, sums = new_users, (sums[0] + new_users, sums[1] + items)
    return sums[0] / (layers + 1), sums[1] / (layers + 1)


def _forward(vectors, edges, layers):
    return propagate(vectors, edges, layers), edges


def _backward(layers, edges, gradients):
    """A is symmetric, so gradients spread as vectors do; what JAX would derive adds them up in no order of memory."""
    return propagate(gradients, edges, layers), jax.tree.map(lambda _: None, edges)


propagate.defvjp(_forward, _backward)


def batch_loss(vectors, edges: Graph, samples, layers: int, penalty: float):
    """(mean BPR loss plus penalty / 2 times the mean squared length of the samples' own vectors, mean BPR loss alone)."""
    users, good, bad = samples
    smooth_users, smooth_items = propagate(vectors, edges, layers)
    margins = jnp.sum(smooth_users[users] * (smooth_items[good] - smooth_items[bad]), axis=-1)
    own = sum(jnp.sum(rows**2) for rows in (vectors[0][users], vectors[1][good], vectors[1][bad]))
    told = jnp.mean(bpr.loss(margins))
    return told + 0.5 * penalty * own / len(users), told


@functools.partial(jax.jit, static_argnames=("items", "batch", "layers"), donate_argnums=0)
def _steps(state, keys, columns, edges: Graph, items: int, batch: int, layers: int, rate, penalty):
    taken, optimizer = negatives.Taken(*columns, items), optax.adam(rate)

    def step(state, key):
        vectors, moments = state
        samples = negatives.draw(key, taken, batch)
        (_, told), gradients = jax.value_and_grad(batch_loss, has_aux=True)(vectors, edges, samples, layers, penalty)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(vectors, updates), moments), told

    state, losses = jax.lax.scan(step, state, keys)
    return state, losses.mean()


def fit(
    data: Interactions, *, width: int = 64, layers: int = 3, rate: float = 1e-3, penalty: float = 1e-4,
    epochs: int = 20, batch: int = 2048, seed: int = 0,
) -> LightGcn:  # fmt: skip
    """Adam on the BPR loss, one drawn negative a sample; an epoch draws as many samples as the data has (user, item) pairs.

    Raises UserError where loss or vectors are no longer finite.
    """
    matrix = data.matrix
    edges, taken = graph(matrix), negatives.table(matrix)
    start, steps_key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(start)
    vectors = tuple(jax.random.normal(key, (rows, width)) * 0.1 for key, rows in zip(keys, matrix.shape, strict=True))
    state, steps, losses = (vectors, optax.adam(rate).init(vectors)), -(-len(taken.item_N) // batch), []
    for keys in jax.random.split(steps_key, (epochs, steps)):
        state, told = _steps(state, keys, taken[:3], edges, taken.items, batch, layers, rate, penalty)
        losses.append(float(told))
        if not bpr.finite((told, state[0])):
            raise UserError(f"LightGCN diverged in epoch {len(losses)}; lower rate={rate}.")
    users, items = jax.jit(propagate, static_argnums=2)(state[0], edges, layers)
    return LightGcn(users, items, np.array(losses))
