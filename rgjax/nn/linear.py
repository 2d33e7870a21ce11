"""Matrix products of activations and weights."""

from __future__ import annotations

import math
from typing import Protocol

import jax
import jax.numpy as jnp


class Matrix(Protocol):
    """What may stand for a weight array in `linear`: a matrix kept in another form (low-rank terms beside it, scaled, quantized)."""

    def product(self, x: jax.Array, axes: int) -> jax.Array:
        """As `linear(x, w, axes)`."""

    def dense(self) -> jax.Array:
        """The weight array w [*I, *O] that `product` multiplies by, float32."""


def linear(x: jax.Array, w: jax.Array | Matrix, axes: int = 1, bias: jax.Array | None = None) -> jax.Array:
    """x [..., *I] times w [*I, *O], over the `axes` axes I that both share, plus bias [*O]; both are cast to x's type. Returns [..., *O].

    All are folded into matrices first: for the gradient of the weights of an einsum over [B, T, D], XLA's CPU backend writes
    transposed copies on one core, and a gated feed-forward takes nearly twice as long (`profiling/step.py`). And a GPU's product
    adds a bias itself only where both are still folded.
    """
    if not hasattr(w, "dtype"):
        y = w.product(x, axes)
        return y if bias is None else y + bias[...].astype(y.dtype)
    inner, outer = w.shape[:axes], w.shape[axes:]
    size = math.prod(inner)
    y = x.reshape(-1, size) @ w.astype(x.dtype).reshape(size, -1)
    if bias is not None:
        y += bias[...].astype(y.dtype).reshape(-1)
    return y.reshape(*x.shape[: x.ndim - axes], *outer)


def dense(w: jax.Array | Matrix) -> jax.Array:
    """The array of a weight in whatever form."""
    return w if hasattr(w, "dtype") else w.dense()


def scores(x: jax.Array, table_VD) -> jax.Array:
    """Float32 products [..., V] of x [..., D] and each row of a table, an array or what stands for one (it has `scores`)."""
    if not hasattr(table_VD, "dtype"):
        return table_VD.scores(x)
    return jnp.einsum("...d,vd->...v", x, table_VD.astype(x.dtype), preferred_element_type=jnp.float32)
