"""What a training step changes: parameters, optimizer state, their average, the step and the random key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding


class TrainState(NamedTuple):
    """A pytree; `params` and `ema` are plain nested dicts of float32 arrays (`ema` is {} when none is kept)."""

    step: jax.Array  # int32 scalar: optimizer steps taken
    params: dict
    opt_state: optax.OptState
    ema: dict
    key: jax.Array  # uint32 key data; step n's dropout key is fold_in(key, n)


def abstract_state(factory: ModelFactory, tx: optax.GradientTransformation, mesh, ema: bool, seed: int) -> TrainState:
    """ShapeDtypeStructs with shardings for every leaf of a fresh state."""
    placed = sharding.parameters(factory.abstract, mesh)
    state = jax.eval_shape(lambda: _fresh(factory, tx, ema, seed))
    whole = sharding.replicated(mesh)
    shardings = TrainState(whole, placed, sharding.like(state.opt_state, placed, mesh), placed if ema else {}, whole)
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), state, shardings)


def create(factory: ModelFactory, tx: optax.GradientTransformation, mesh, ema: bool, seed: int, params: dict | None = None) -> TrainState:
    """A fresh state, each array made on the devices that will hold it; `params` already there are taken over (donated)."""
    where = jax.tree.map(lambda s: s.sharding, abstract_state(factory, tx, mesh, ema, seed))
    return jax.jit(lambda given: _fresh(factory, tx, ema, seed, given), out_shardings=where, donate_argnums=0)(params)


def _fresh(factory, tx, ema, seed, params=None) -> TrainState:
    key = jax.random.key(seed)
    params = params or factory.fresh(jax.random.fold_in(key, 0))
    average = jax.tree.map(jnp.copy, params) if ema else {}
    data = jax.random.key_data(jax.random.fold_in(key, 1))
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average, data)
