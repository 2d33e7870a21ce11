"""HSTU's layer: pointwise attention, whose weights are no distribution, gated; it has no feed-forward (Zhai et al. 2024, arXiv:2402.17152)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.nn import param, positions
from rgjax.nn.attention import MASKED
from rgjax.nn.dropout import dropout
from rgjax.nn.linear import linear
from rgjax.nn.norms import Norm


class PointwiseAttention(nnx.Module):
    """y = wo (norm(A v) * u), A = silu(q k^T + bias) / keys, with u, v, q, k = silu of products of x (equations 2 to 4)."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        d, h = config.width, config.heads
        a, keys = config.head_dim or d // h, jax.random.split(key, 5)
        self.rotates = config.positions == "rotary"
        self.wq, self.wk, self.wv, self.wu = (param.fan_in(k, (d, h, a), ("embed", "heads", None), d) for k in keys[:4])
        self.wo = param.fan_in(keys[4], (h, a, d), ("heads", None, "embed"), h * a * 2 * config.layers)
        self.norm = Norm(h * a, config.norm, config.norm_eps)

    def __call__(self, x_BTD: jax.Array, bias_BHTS: jax.Array, rope=None) -> jax.Array:
        """[B, T, D]; where the bias is MASKED a key counts nothing, elsewhere it is added to the scores."""
        v, u = (jax.nn.silu(linear(x_BTD, w[...])) for w in (self.wv, self.wu))
        read = jnp.einsum("bhts,bsha->btha", self._scores(x_BTD, bias_BHTS, rope).astype(v.dtype), v)
        flat = self.norm(read.reshape(*read.shape[:2], -1)).reshape(read.shape)
        return linear(flat * u, self.wo[...], axes=2)

    def weights(self, x_BTD: jax.Array, bias_BHTS: jax.Array, rope=None) -> jax.Array:
        """The size of each score as a share of its row's, float32 [B, H, T, S]: what stands for attention where rows do not sum to 1."""
        size = jnp.abs(self._scores(x_BTD, bias_BHTS, rope))
        return size / jnp.maximum(size.sum(-1, keepdims=True), 1e-9)

    def _scores(self, x_BTD, bias_BHTS, rope) -> jax.Array:
        q, k = (jax.nn.silu(linear(x_BTD, w[...])) for w in (self.wq, self.wk))
        if self.rotates:
            q, k = positions.rotate(q, rope), positions.rotate(k, rope)
        allowed = bias_BHTS > MASKED / 2
        scores = jnp.einsum("btha,bsha->bhts", q, k, preferred_element_type=jnp.float32) + jnp.where(allowed, bias_BHTS, 0.0)
        keys = jnp.maximum(allowed.sum(-1, keepdims=True), 1)  # the paper divides by the longest sequence; the norm after it forgets which
        return jnp.where(allowed, jax.nn.silu(scores), 0.0) / keys


class PointwiseBlock(nnx.Module):
    """The layer with its norm and residual; stands for `models.transformer.Block` where a whole sequence is read at once."""

    post_norm = False

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.rate = config.dropout
        self.norm_attention, self.attention = Norm(config.width, config.norm, config.norm_eps), PointwiseAttention(config, key)

    def __call__(self, x_BTD, bias, rope=None, source=None, source_bias=None, key=None):
        """x [B, T, D] -> (x, no cache)."""
        return x_BTD + dropout(self.attention(self.norm_attention(x_BTD), bias, rope), self.rate, key), None
