"""Matrices in int8: one scale per output channel, symmetric, rounded to nearest. Only weights; activations keep their type.

    s = max |w| / 127 over a channel,  q = round(w / s),  w ~ q * s  with an error of at most s / 2
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rgjax.nn.linear import linear, scores


def quantize(w: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(q int8 of w's shape, s float32 without `axes`, which are summed over in products). A channel of zeros has scale 1."""
    w = np.asarray(w, np.float32)
    highest = np.max(np.abs(w), axis=axes, keepdims=True)
    scale = highest / np.float32(127)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))  # numbers below have too few digits to divide by: they become 0
    return np.clip(np.rint(w / scale), -127, 127).astype(np.int8), np.squeeze(scale, axes)


class Int8Matrix(nnx.Module):
    """q [*I, *O] and s [*O] (in a stack of layers, each with a leading L); stands for the parameter in `linear`."""

    def __init__(self, q: jax.Array, s: jax.Array):
        self.q, self.s = nnx.data(q), nnx.data(s)

    def __getitem__(self, _) -> Int8Matrix:
        return self

    def product(self, x: jax.Array, axes: int) -> jax.Array:
        return linear(x, self.q, axes) * self.s.astype(x.dtype)  # whole numbers up to 127 are exact in bfloat16 too

    def dense(self) -> jax.Array:
        return self.q.astype(jnp.float32) * self.s.reshape(*(1,) * (self.q.ndim - self.s.ndim), *self.s.shape)


class Int8Table(nnx.Module):
    """q [V, D] and s [V]: a table of rows that is also multiplied by; stands for an embedding's parameter."""

    def __init__(self, q: jax.Array, s: jax.Array):
        self.q, self.s = nnx.data(q), nnx.data(s)

    def __getitem__(self, tokens) -> Int8Table | jax.Array:
        """Itself for `...`, else float32 rows."""
        return self if tokens is Ellipsis else self.q[tokens].astype(jnp.float32) * self.s[tokens][..., None]

    def scores(self, x: jax.Array) -> jax.Array:
        """As `nn.linear.scores(x, w)`."""
        return scores(x, self.q) * self.s

    def astype(self, dtype) -> jax.Array:
        """The table as an array [V, D]."""
        return (self.q.astype(jnp.float32) * self.s[:, None]).astype(dtype)
