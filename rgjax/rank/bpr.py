"""Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009)."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import negatives


class Factors(NamedTuple):
    """`users` [U, D], `items` [I, D], `bias` [I], float32."""

    users: jax.Array
    items: jax.Array
    bias: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Bpr:
    """Fitted factors, and the mean loss of each epoch."""

    factors: Factors
    losses: np.ndarray

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        return self.factors.users[jnp.asarray(users)] @ self.factors.items.T + self.factors.bias


def loss(margins):
    """-ln sigmoid(margin) of each margin, the score of what was taken less that of what was not."""
    return jax.nn.softplus(-margins)


def finite(tree) -> bool:
    """Whether all arrays of a tree hold finite numbers only."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


def sample_loss(rows, penalty):
    """Sum over samples of the loss and penalty / 2 times the squared rows; rows: user, taken, other [B, D], bias of taken and other [B]."""
    user, taken, other, bias_taken, bias_other = rows
    margins = jnp.sum(user * (taken - other), axis=-1) + bias_taken - bias_other
    return jnp.sum(loss(margins)) + 0.5 * penalty * sum(jnp.sum(row**2) for row in rows)


@functools.partial(jax.jit, static_argnames=("batch", "items"), donate_argnums=0)
def _epoch(factors: Factors, keys, columns, items: int, batch: int, rate, penalty):
    taken = negatives.Taken(*columns, items)

    def step(f, key):
        users, good, bad = negatives.draw(key, taken, batch)
        rows = (f.users[users], f.items[good], f.items[bad], f.bias[good], f.bias[bad])
        value, (user, up, down, bias_up, bias_down) = jax.value_and_grad(sample_loss)(rows, penalty)
        moved = Factors(
            f.users.at[users].add(-rate * user), f.items.at[good].add(-rate * up).at[bad].add(-rate * down),
            f.bias.at[good].add(-rate * bias_up).at[bad].add(-rate * bias_down),
        )  # fmt: skip
        return moved, value / batch

    factors, values = jax.lax.scan(step, factors, keys)
    return factors, values.mean()


def fit(
    data: Interactions, width: int = 64, rate: float = 0.05, penalty: float = 0.01, epochs: int = 20, batch: int = 1024, seed: int = 0
) -> Bpr:
    """Stochastic gradient descent; a step adds the gradients of `batch` samples at once, each as if it came alone.

    An epoch draws as many samples as the data has (user, item) pairs. `rate` is that of a single sample. Raises UserError where loss or
    factors are no longer finite.
    """
    taken = negatives.table(data.matrix)
    start, steps_key = jax.random.split(jax.random.key(seed))
    users, items = jax.random.split(start)
    shape = lambda key, rows: jax.random.normal(key, (rows, width)) * 0.1 / width**0.5
    factors = Factors(shape(users, len(data.users)), shape(items, taken.items), jnp.zeros(taken.items))
    steps, losses = -(-len(taken.item_N) // batch), []
    for keys in jax.random.split(steps_key, (epochs, steps)):
        factors, value = _epoch(factors, keys, taken[:3], taken.items, batch, rate, penalty)
        losses.append(float(value))
        if not finite((value, factors)):
            raise UserError(f"BPR diverged in epoch {len(losses)}; lower rate={rate} or batch={batch}.")
    return Bpr(factors, np.array(losses))
