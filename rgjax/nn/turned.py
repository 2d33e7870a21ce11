"""Matrices kept output by input, for products with few rows on a CPU.

XLA's CPU backend multiplies [O, I] by [I, R] about twice as fast as [R, I] by [I, O] where R is some 32 or fewer, as in a step of decoding: it copies
whatever stands to the right into another order first. Without the barrier it would turn such a product back.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

FEW = 32  # rows up to which a turned product is the faster one


def turned(w_OI: jax.Array, x_RI: jax.Array, dtype=None) -> jax.Array:
    """x w^T [R, O], added up and returned in `dtype` (that of both, if not told)."""
    return jax.lax.optimization_barrier(jnp.matmul(w_OI, x_RI.T, preferred_element_type=dtype)).T


class Turned(nnx.Module):
    """A matrix w [*I, *O], I its first `axes` axes, kept as [O, I]; stands for the parameter in `nn.linear.linear`."""

    def __init__(self, w: jax.Array, axes: int):
        self.inner, self.outer = w.shape[:axes], w.shape[axes:]
        self.w_OI = nnx.data(w.reshape(math.prod(self.inner), -1).T)

    def __getitem__(self, _) -> Turned:
        return self

    def product(self, x: jax.Array, axes: int) -> jax.Array:
        """As `linear(x, w, axes)`."""
        w_OI, x_RI = self.w_OI.astype(x.dtype), x.reshape(-1, self.w_OI.shape[1])
        y = turned(w_OI, x_RI) if len(x_RI) <= FEW else x_RI @ w_OI.T
        return y.reshape(*x.shape[: x.ndim - axes], *self.outer)

    def dense(self) -> jax.Array:
        """w [*I, *O], float32."""
        return self.w_OI.T.reshape(*self.inner, *self.outer).astype(jnp.float32)


class TurnedTable(nnx.Module):
    """An output matrix [V, D]; stands for one in `nn.linear.scores`."""

    def __init__(self, table_VD: jax.Array):
        self.table_VD = nnx.data(table_VD)

    def scores(self, x: jax.Array) -> jax.Array:
        """Float32 products [..., V]."""
        return turned(self.table_VD, x.reshape(-1, x.shape[-1]), jnp.float32).reshape(*x.shape[:-1], -1)
