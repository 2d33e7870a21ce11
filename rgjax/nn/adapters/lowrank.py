"""Low-rank terms beside a matrix: LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732), DoRA (Liu et al.
2024, arXiv:2402.09353) and AdaLoRA (Zhang et al. 2023, arXiv:2303.10512)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import AdapterConfig
from rgjax.nn import param
from rgjax.nn.dropout import dropout
from rgjax.nn.linear import dense, linear

INPUT_AXES = {"wo": 2}  # of a matrix by its name; all others have one
SINGULAR = "e"  # the name of AdaLoRA's singular values


def rank(config: AdapterConfig) -> int:
    """The rank that parameters have: AdaLoRA begins with more than its budget."""
    return config.initial_rank if config.adapter == "adalora" else config.rank


def scale(config: AdapterConfig) -> float:
    """The factor on the low-rank term. AdaLoRA's stays that of the first rank, as in PEFT, however many are pruned."""
    if config.adapter == "adalora":
        return config.alpha / (config.initial_rank + 1e-5)
    return config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)


def parameters(name: str, shape: tuple[int, ...], axes: tuple, config: AdapterConfig, key: jax.Array, base: jax.Array | None) -> dict:
    """New parameters beside the stacked matrix `name` [L, *I, *O]: `a` [L, I, R], `b` [L, R, O], AdaLoRA's `e` [L, R], DoRA's `m` [L, O].

    The term starts at zero. `base` gives DoRA its magnitudes (ones where it is unknown). `axes` are the matrix's logical axes.
    """
    n, r = INPUT_AXES.get(name, 1), rank(config)
    layers, rows, columns = shape[0], math.prod(shape[1 : 1 + n]), math.prod(shape[1 + n :])
    near, far = axes[-len(shape[1:])], axes[-len(shape[1 + n :])]
    keys = jax.random.split(key, 2)
    made = {"a": param.normal(keys[0], (layers, rows, r), (None, near, None), rows**-0.5 / math.sqrt(3))}
    if config.adapter == "adalora":  # as PEFT: both sides drawn, the singular values zero
        made["a"] = param.normal(keys[0], (layers, rows, r), (None, near, None), 0.02)
        made["b"] = param.normal(keys[1], (layers, r, columns), (None, None, far), 0.02)
        made[SINGULAR] = param.constant(0.0, (layers, r), (None, None))
    else:
        made["b"] = param.constant(0.0, (layers, r, columns), (None, None, far))
    if config.dora:
        made["m"] = param.constant(1.0, (layers, columns), (None, far))
        if base is not None:
            made["m"][...] = jnp.linalg.norm(base.reshape(layers, rows, columns), axis=1)
    return made


class LowRank(nnx.Module):
    """A matrix `base` with s * A (E) B beside it, and DoRA's magnitudes; stands for the parameter in `linear`."""

    def __init__(self, base, values: dict, config: AdapterConfig, axes: int, key=None):
        """`values`: as `parameters`; `key` (uint32 key data, per layer) drops entries of the term's input."""
        self.base, self.axes = base, axes
        self.factor, self.rate = scale(config), config.adapter_dropout
        self.a, self.b, self.e, self.m = (nnx.data(values.get(name)) for name in "abem")
        self.key = nnx.data(key)

    def __getitem__(self, _) -> LowRank:
        return self

    def _term(self, x_I: jax.Array) -> jax.Array:
        h = linear(x_I, self.a)
        if self.e is not None:
            h = h * self.e.astype(h.dtype)
        return linear(h, self.b) * self.factor

    def _shares(self) -> jax.Array:
        """DoRA's factor of each output [O]: its magnitude over the norm of its column, which counts as a constant in the gradient."""
        norms = jnp.linalg.norm(self._sum().reshape(-1, self.m.shape[-1]), axis=0)
        return self.m / jax.lax.stop_gradient(norms)

    def _sum(self) -> jax.Array:
        w = dense(self.base[...])
        a = self.a if self.e is None else self.a * self.e
        return w + (a @ self.b * self.factor).reshape(w.shape)

    def product(self, x: jax.Array, axes: int) -> jax.Array:
        y = linear(x, self.base[...], axes)
        dropped = x
        if self.key is not None and self.rate > 0:
            dropped = dropout(x, self.rate, jax.random.wrap_key_data(self.key))
        term = self._term(dropped.reshape(*x.shape[: x.ndim - axes], -1)).reshape(y.shape)
        if self.m is None:
            return y + term
        shares = self._shares().reshape(y.shape[x.ndim - axes :]).astype(y.dtype)
        if dropped is x:
            return shares * (y + term)
        return y + (shares - 1) * linear(dropped, self.base[...], axes) + shares * term  # as PEFT where the input is dropped

    def dense(self) -> jax.Array:
        w = self._sum()
        return w if self.m is None else (w.reshape(-1, self.m.shape[-1]) * self._shares()).reshape(w.shape)
