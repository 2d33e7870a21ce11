"""RMSNorm (Zhang & Sennrich 2019) and layer normalisation (Ba et al. 2016), computed in float32."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn import param


class Norm(nnx.Module):
    """Normalises the last axis of x [..., D]; returns x's type."""

    def __init__(self, width: int, kind: str, eps: float, axis: str | None = None):
        self.kind, self.eps = kind, eps
        self.scale = param.constant(1.0, (width,), (axis,))
        self.shift = param.constant(0.0, (width,), (axis,)) if kind == "layernorm" else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalised(self.eps, x, self.scale[...], None if self.shift is None else self.shift[...])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalised(eps: float, x, scale_D, shift_D):
    """x [..., D], each row with a mean square of 1 (RMSNorm) or, with a shift, a mean of 0 and a variance of 1; scaled and shifted."""
    return _forward(eps, x, scale_D, shift_D)[0]


def _forward(eps, x, scale_D, shift_D):
    x32 = x.astype(jnp.float32)
    mean = None if shift_D is None else jnp.mean(x32, axis=-1, keepdims=True)
    centred = x32 if mean is None else x32 - mean
    rate = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    y = centred * rate * scale_D
    return (y if shift_D is None else y + shift_D).astype(x.dtype), (x, mean, rate, scale_D)


def _backward(eps, saved, dy):
    """Each row's mean and rate are kept, a number each, so that sums over rows need no pass of their own over normalised rows."""
    x, mean, rate, scale_D = saved
    mean, rate = jax.lax.optimization_barrier((mean, rate))
    x32, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
    y = (x32 if mean is None else x32 - mean) * rate
    d_y = dy * scale_D
    d_x = d_y - y * jnp.mean(d_y * y, axis=-1, keepdims=True)
    if mean is not None:
        d_x -= jnp.mean(d_y, axis=-1, keepdims=True)
    rows = tuple(range(x.ndim - 1))
    return (d_x * rate).astype(x.dtype), jnp.sum(dy * y, axis=rows), None if mean is None else jnp.sum(dy, axis=rows)


normalised.defvjp(_forward, _backward)
