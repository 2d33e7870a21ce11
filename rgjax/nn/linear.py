"""Matrix products of activations and weights."""

from __future__ import annotations

import math

import jax


def linear(x: jax.Array, w: jax.Array, axes: int = 1) -> jax.Array:
    """x [..., *I] times w [*I, *O], over the `axes` axes I that both share; w is cast to x's type. Returns [..., *O].

    Both are folded into matrices first: for the gradient of the weights of an einsum over [B, T, D], XLA's CPU backend writes
    transposed copies on one core, and a gated feed-forward takes nearly twice as long (`profiling/step.py`).
    """
    inner, outer = w.shape[:axes], w.shape[axes:]
    size = math.prod(inner)
    y = x.reshape(-1, size) @ w.astype(x.dtype).reshape(size, -1)
    return y.reshape(*x.shape[: x.ndim - axes], *outer)
