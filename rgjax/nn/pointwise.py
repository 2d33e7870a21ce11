"""HSTU's layer: pointwise attention, whose weights are no distribution, gated; it has no feed-forward (Zhai et al. 2024, arXiv:2402.17152)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.nn import param, positions
from rgjax.nn.attention import LayerCache
from rgjax.nn.dropout import dropout
from rgjax.nn.linear import linear
from rgjax.nn.norms import Norm
from rgjax.nn.segments import MASKED


class PointwiseAttention(nnx.Module):
    """y = wo (norm(A v) * u), A = silu(q k^T + bias) / keys, with u, v, q, k = silu of products of x (equations 2 to 4)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        d, h = config.width, config.heads
        a, keys = config.head_dim or d // h, jax.random.split(key, 5)
        self.rotates = config.positions == "rotary"
        self.wq, self.wk, self.wv, self.wu = (param.fan_in(k, (d, h, a), ("embed", "heads", None), d) for k in keys[:4])
        self.wo = param.fan_in(keys[4], (h, a, d), ("heads", None, "embed"), h * a * 2 * config.layers)
        self.norm = Norm(h * a, config.norm, config.norm_eps)

    def keys_values(self, x_BTD: jax.Array, rope=None) -> LayerCache:
        """Keys and values of x, each [B, T, H, A]."""
        k, v = (jax.nn.silu(linear(x_BTD, w[...])) for w in (self.wk, self.wv))
        return LayerCache(positions.rotate(k, rope) if self.rotates else k, v)

    def __call__(self, x_BTD: jax.Array, bias_BHTS: jax.Array, rope=None, cache: LayerCache | None = None, write_at=None):
        """([B, T, D], keys and values read); where the bias is MASKED a key counts nothing, elsewhere it is added to the scores.

        With a `cache` x's keys and values are first written into it at position `write_at` (int32 scalar), and all of it is read.
        """
        new = self.keys_values(x_BTD, rope)
        read = new if cache is None else cache.written(new, write_at)
        mixed = jnp.einsum("bhts,bsha->btha", self._scores(x_BTD, read.k, bias_BHTS, rope).astype(read.v.dtype), read.v)
        flat = self.norm(mixed.reshape(*mixed.shape[:2], -1)).reshape(mixed.shape)
        return linear(flat * jax.nn.silu(linear(x_BTD, self.wu[...])), self.wo[...], axes=2), read

    def weights(self, x_BTD: jax.Array, bias_BHTS: jax.Array, rope=None) -> jax.Array:
        """The size of each score as a share of its row's, float32 [B, H, T, S]: what stands for attention where rows do not sum to 1."""
        size = jnp.abs(self._scores(x_BTD, self.keys_values(x_BTD, rope).k, bias_BHTS, rope))
        return size / jnp.maximum(size.sum(-1, keepdims=True), 1e-9)

    def _scores(self, x_BTD, k_BSHA, bias_BHTS, rope) -> jax.Array:
        q = jax.nn.silu(linear(x_BTD, self.wq[...]))
        q = positions.rotate(q, rope) if self.rotates else q
        allowed = bias_BHTS > MASKED / 2
        scores = jnp.einsum("btha,bsha->bhts", q, k_BSHA, preferred_element_type=jnp.float32) + jnp.where(allowed, bias_BHTS, 0.0)
        keys = jnp.maximum(allowed.sum(-1, keepdims=True), 1)  # the paper divides by the longest sequence; the norm after it forgets which
        return jnp.where(allowed, jax.nn.silu(scores), 0.0) / keys


class PointwiseBlock(nnx.Module):
    """The layer with its norm and residual; stands for `models.transformer.Block` in a stack that reads nothing but itself."""

    post_norm = False

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.rate = config.dropout
        self.norm_attention, self.attention = Norm(config.width, config.norm, config.norm_eps), PointwiseAttention(config, key)

    def __call__(self, x_BTD, bias, rope=None, source=None, source_bias=None, key=None, cache=None, write_at=None):
        """x [B, T, D] -> (x, keys and values read)."""
        y, cache = self.attention(self.norm_attention(x_BTD), bias, rope, cache, write_at)
        return x_BTD + dropout(y, self.rate, key), cache
