"""IA3 (Liu et al. 2022, arXiv:2205.05638): outputs of keys and values, and inputs of the feed-forward's last matrix, times a vector."""

from __future__ import annotations

import math

import jax
from flax import nnx

from rgjax.nn import param
from rgjax.nn.adapters.lowrank import INPUT_AXES
from rgjax.nn.linear import dense, linear

BY_INPUT = ("w_out",)  # matrices whose input is scaled; of all others, the output and with it the bias


def parameters(name: str, shape: tuple[int, ...], axes: tuple) -> dict:
    """`l` [L, I] or [L, O], ones, beside the stacked matrix `name` [L, *I, *O]."""
    n = INPUT_AXES.get(name, 1)
    scaled = shape[1 : 1 + n] if name in BY_INPUT else shape[1 + n :]
    axis = axes[-len(shape[1:])] if name in BY_INPUT else axes[-len(shape[1 + n :])]
    return {"l": param.constant(1.0, (shape[0], math.prod(scaled)), (None, axis))}


class Scaled(nnx.Module):
    """A matrix whose input or output is scaled, or (`axes` 0) its bias; stands for the parameter."""

    def __init__(self, base, scale, axes: int, by_input: bool):
        self.base, self.scale, self.axes, self.by_input = base, nnx.data(scale), axes, by_input

    def __getitem__(self, _):
        return self if self.axes else self.dense()

    def product(self, x: jax.Array, axes: int) -> jax.Array:
        if self.by_input:
            return linear(x * self.scale.reshape(x.shape[x.ndim - axes :]).astype(x.dtype), self.base[...], axes)
        y = linear(x, self.base[...], axes)
        return y * self.scale.reshape(y.shape[x.ndim - axes :]).astype(y.dtype)

    def dense(self) -> jax.Array:
        w = dense(self.base[...])
        n = len(w.shape[: self.axes])
        if self.by_input:
            return w * self.scale.reshape(*w.shape[:n], *(1,) * (w.ndim - n))
        return w * self.scale.reshape(w.shape[n:])
