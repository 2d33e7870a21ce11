"""Parameters: float32 arrays that carry the logical names of their axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


def normal(key: jax.Array, shape: tuple[int, ...], axes: tuple[str | None, ...], std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2); `axes` names each dimension for rgjax.parallel.sharding."""
    assert len(shape) == len(axes)
    return nnx.Param(jax.random.normal(key, shape, jnp.float32) * std, axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    """A float32 parameter filled with `value` (norm scales, biases)."""
    assert len(shape) == len(axes)
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


def fan_in(key: jax.Array, shape: tuple[int, ...], axes: tuple[str | None, ...], fan: int) -> nnx.Param:
    """A float32 matrix with variance 1 / fan, which keeps activations at unit scale."""
    return normal(key, shape, axes, fan**-0.5)
