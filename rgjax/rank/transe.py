"""TransE: entities and relations as vectors such that head + relation lies near tail (Bordes et al. 2013, "Translating embeddings").

As a recommender, shoppers are entities too and what they took are triples of one more relation, 'took' (as in Ai et al. 2018,
arXiv:1805.03352): an item is near what is taken with it and near what is said of it, so items that nobody had are placed by their triples.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import bpr, negatives
from rgjax.rank.recommender import as_matrix

RECENT = 5  # items of a history that place a user


class Embedding(NamedTuple):
    """`entities_ED`, rows of length 1, and `relations_RD`, float32."""

    entities_ED: jax.Array
    relations_RD: jax.Array

    def tails(self, head_B, relation_B) -> jax.Array:
        """float32 [B, E]: minus the squared distance of head + relation from every entity."""
        return _near(self.entities_ED[head_B] + self.relations_RD[relation_B], self.entities_ED)

    def heads(self, relation_B, tail_B) -> jax.Array:
        """float32 [B, E]: minus the squared distance of every entity from tail - relation."""
        return _near(self.entities_ED[tail_B] - self.relations_RD[relation_B], self.entities_ED)


class Graph(NamedTuple):
    """Triples [N, 3] int32, and who is known where: row `by_head_N` of `known` holds the true tails of a triple's head and
    relation, row `by_tail_N` the true heads of its relation and tail. Other ends are drawn from the entities `pool_P`; `spans_R4` are, by
    relation, the places there of the first head and after the last, and the same of tails."""

    triples_N3: jax.Array
    by_head_N: jax.Array
    by_tail_N: jax.Array
    known: negatives.Taken
    pool_P: jax.Array
    spans_R4: jax.Array


def known_ends(triples_N3: np.ndarray, entities: int) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """(float32 [G, E], row by head and relation int [N], row by relation and tail int [N]): the row of a triple holds its true other ends."""
    head, relation, tail = triples_N3.astype(np.int64).T
    _, by_head = np.unique(relation * entities + head, return_inverse=True)
    _, by_tail = np.unique(relation * entities + tail, return_inverse=True)
    by_tail = by_tail + by_head.max() + 1
    places = np.concatenate([by_head, by_tail]), np.concatenate([tail, head])
    return sparse.csr_array((np.ones(2 * len(head), np.float32), places), shape=(by_tail.max() + 1, entities)), by_head, by_tail


def graph(triples_N3: np.ndarray, entities: int, pool_P: np.ndarray, spans_R4: np.ndarray) -> Graph:
    """On the device; a triple that is there several times is drawn as often."""
    known, by_head, by_tail = known_ends(triples_N3, entities)
    held = lambda array: jnp.asarray(array, jnp.int32)
    return Graph(held(triples_N3), held(by_head), held(by_tail), negatives.table(known), held(pool_P), held(spans_R4))


def corrupted(key: jax.Array, of: Graph, picked_B) -> tuple[jax.Array, jax.Array]:
    """(triples [B, 3] int32 with another head or, as often, another tail, drawn uniformly from the relation's span; bool [B]: not a true one).

    Of `negatives.TRIES` draws the first counts that makes no true triple.
    """
    side_key, end_key = jax.random.split(key)
    head, relation, tail = of.triples_N3[picked_B].T
    at_tail = jax.random.bernoulli(side_key, 0.5, picked_B.shape)
    first_head, end_head, first_tail, end_tail = of.spans_R4[relation].T
    low, high = jnp.where(at_tail, first_tail, first_head), jnp.where(at_tail, end_tail, end_head)
    drawn = of.pool_P[jax.random.randint(end_key, (len(picked_B), negatives.TRIES), low[:, None], high[:, None])]
    row = jnp.where(at_tail, of.by_head_N[picked_B], of.by_tail_N[picked_B])
    true = negatives.took(of.known, jnp.broadcast_to(row[:, None], drawn.shape), drawn)
    first = jnp.argmin(true, axis=1)[:, None]
    other = jnp.take_along_axis(drawn, first, axis=1)[:, 0]
    false = ~jnp.take_along_axis(true, first, axis=1)[:, 0]
    return jnp.stack([jnp.where(at_tail, head, other), relation, jnp.where(at_tail, other, tail)], axis=1), false


def distance(vectors: Embedding, triples_B3) -> jax.Array:
    """float32 [B]: the length of head + relation - tail."""
    head, relation, tail = triples_B3.T
    apart = vectors.entities_ED[head] + vectors.relations_RD[relation] - vectors.entities_ED[tail]
    return jnp.sqrt(jnp.sum(apart**2, axis=-1) + 1e-12)


def ranking_loss(vectors: Embedding, true_B3, other_B3, counts_B, margin: float) -> jax.Array:
    """Mean over the triples that count of max(0, margin + distance of the true one - distance of the other)."""
    losses = jax.nn.relu(margin + distance(vectors, true_B3) - distance(vectors, other_B3))
    return jnp.sum(losses * counts_B) / jnp.maximum(jnp.sum(counts_B), 1)


def on_sphere(vectors: Embedding) -> Embedding:
    """With entities of length 1: else the loss would fall by their growth alone."""
    return vectors._replace(entities_ED=vectors.entities_ED / jnp.maximum(jnp.linalg.norm(vectors.entities_ED, axis=1, keepdims=True), 1e-12))


@functools.partial(jax.jit, static_argnames=("batch",), donate_argnums=0)
def _steps(state, keys, of: Graph, batch: int, rate, margin):
    optimizer = optax.adam(rate)

    def step(state, key):
        vectors, moments = state
        pick_key, key = jax.random.split(key)
        picked = jax.random.randint(pick_key, (batch,), 0, len(of.triples_N3))
        told, gradients = jax.value_and_grad(ranking_loss)(vectors, of.triples_N3[picked], *corrupted(key, of, picked), margin)
        updates, moments = optimizer.update(gradients, moments)
        return (on_sphere(optax.apply_updates(vectors, updates)), moments), told

    state, losses = jax.lax.scan(step, state, keys)
    return state, losses.mean()


def learn(of: Graph, width: int, margin: float, rate: float, epochs: int, batch: int, seed: int) -> tuple[Embedding, np.ndarray]:
    """(vectors, mean loss of each epoch) by Adam, rows of entities scaled to length 1 after each step; an epoch draws as many triples as there are.

    Raises UserError where loss or vectors are no longer finite.
    """
    entities, relations = of.known.items, len(of.spans_R4)
    *start, steps_key = jax.random.split(jax.random.key(seed), 3)
    bound = 6 / width**0.5  # as the paper draws them
    vectors = Embedding(*(jax.random.uniform(k, (n, width), minval=-bound, maxval=bound) for k, n in zip(start, (entities, relations), strict=True)))
    vectors = on_sphere(vectors._replace(relations_RD=vectors.relations_RD / jnp.linalg.norm(vectors.relations_RD, axis=1, keepdims=True)))
    state, losses = (vectors, optax.adam(rate).init(vectors)), []
    for keys in jax.random.split(steps_key, (epochs, -(-len(of.triples_N3) // batch))):
        state, told = _steps(state, keys, of, batch, rate, margin)
        losses.append(float(told))
        if not bpr.finite((told, state[0])):
            raise UserError(f"TransE diverged in epoch {len(losses)}; lower rate={rate}.")
    return state[0], np.array(losses)


@dataclasses.dataclass(frozen=True, eq=False)
class TransE:
    """`embedding` of entities in the order items, others of the triples, users; the last relation is 'took'; the mean loss of each epoch."""

    embedding: Embedding
    items: int
    users: int
    losses: np.ndarray

    @property
    def items_ID(self) -> jax.Array:
        """float32 [I, D]: the items' vectors, of length 1."""
        return self.embedding.entities_ED[: self.items]

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]: minus the squared distance of user + took from every item."""
        user_BD = self.embedding.entities_ED[len(self.embedding.entities_ED) - self.users + jnp.asarray(users)]
        return _near(user_BD + self.embedding.relations_RD[-1], self.items_ID)

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """float32 [B, I]: minus the squared distance from the mean of the last RECENT items, where user + took would be nearest to them.

        All items alike for an empty history.
        """
        taken = as_matrix([np.asarray(history)[-RECENT:] for history in histories], self.items)
        return _near(jnp.asarray(taken @ np.asarray(self.items_ID) / np.maximum(taken.sum(1), 1)[:, None]), self.items_ID)


def fit(
    data: Interactions, *, width: int = 64, margin: float = 0.25, rate: float = 0.01, epochs: int = 5, batch: int = 4096, facts: float = 0.2,
    seed: int = 0,
) -> TransE:  # fmt: skip
    """On the triples and who took what; of the latter a user gives way to another user, and an item to another that somebody took.

    facts: the share of triples among what is drawn, at least. Raises UserError for a shop without triples.
    """
    if not len(data.triples):
        raise UserError("--models=transe reads triples of the items and the shop has none; add a table of them, or leave it out.")
    items, entities, relations = len(data.items), len(data.items) + len(data.entities), len(data.relations)
    user, item = data.matrix.nonzero()
    took = np.stack([entities + user, np.full(len(user), relations), item], axis=1)
    takers, known = entities + np.unique(user), np.unique(item)
    pool, ends = np.concatenate([np.arange(entities), takers, known]), np.cumsum([entities, len(takers), len(known)])
    spans = np.array([[0, entities, 0, entities]] * relations + [[ends[0], ends[1], ends[1], ends[2]]])
    often = max(1, round(facts / (1 - facts) * len(took) / len(data.triples)))
    of = graph(np.concatenate([np.tile(data.triples, (often, 1)), took]), entities + len(data.users), pool, spans)
    vectors, losses = learn(of, width, margin, rate, epochs, batch, seed)
    return TransE(vectors, items, len(data.users), losses)


def _near(points_BD, entities_ED) -> jax.Array:
    squares = jnp.sum(points_BD**2, axis=1, keepdims=True) + jnp.sum(entities_ED**2, axis=1)
    return 2 * points_BD @ entities_ED.T - squares
