"""RMSNorm (Zhang & Sennrich 2019) and layer normalisation (Ba et al. 2016), computed in float32."""

from __future__ import annotations

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
        x32 = x.astype(jnp.float32)
        if self.kind == "layernorm":
            x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps) * self.scale[...]
        if self.shift is not None:
            y = y + self.shift[...]
        return y.astype(x.dtype)
