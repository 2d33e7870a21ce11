"""What a training step changes: parameters, optimizer state, their average, the step and the random key."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rgjax import trees
from rgjax.models.build import ModelFactory
from rgjax.parallel import sharding


class TrainState(NamedTuple):
    """A pytree; `params` (the trained ones) and `ema` are plain nested dicts of float32 arrays (`ema` is {} when none is kept)."""

    step: jax.Array  # int32 scalar: optimizer steps taken
    params: dict
    opt_state: optax.OptState
    ema: dict
    key: jax.Array  # uint32 key data; step n's dropout key is fold_in(key, n)


def everything(path: str) -> bool:
    """All parameters are trained."""
    return True


def abstract_state(
    factory: ModelFactory, tx: optax.GradientTransformation, mesh, ema: bool, seed: int, trained: Callable[[str], bool] = everything
) -> TrainState:
    """ShapeDtypeStructs with shardings for every leaf of a fresh state; `trained` says which parameters, by path, are in it."""
    placed, _ = trees.divide(sharding.parameters(factory.abstract, mesh), trained)
    state, _ = jax.eval_shape(lambda: _fresh(factory, tx, ema, seed, trained))
    whole = sharding.replicated(mesh)
    shardings = TrainState(whole, placed, sharding.like(state.opt_state, placed, mesh), placed if ema else {}, whole)
    return jax.tree.map(lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), state, shardings)


def create(
    factory: ModelFactory, tx: optax.GradientTransformation, mesh, ema: bool, seed: int, params: dict | None = None,
    trained: Callable[[str], bool] = everything,
) -> tuple[TrainState, dict]:  # fmt: skip
    """(a fresh state, the parameters that are not trained), each array made on the devices that will hold it.

    The model's own `params`, already there, are taken over (donated).
    """
    where = jax.tree.map(lambda s: s.sharding, abstract_state(factory, tx, mesh, ema, seed, trained))
    _, frozen = trees.divide(sharding.parameters(factory.abstract, mesh), trained)
    made = jax.jit(lambda given: _fresh(factory, tx, ema, seed, trained, given), out_shardings=(where, frozen), donate_argnums=0)
    return made(params)


def _fresh(factory, tx, ema, seed, trained, given=None) -> tuple[TrainState, dict]:
    key = jax.random.key(seed)
    params, frozen = trees.divide(factory.fresh(jax.random.fold_in(key, 0), given), trained)
    average = jax.tree.map(jnp.copy, params) if ema else {}
    data = jax.random.key_data(jax.random.fold_in(key, 1))
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average, data), frozen
