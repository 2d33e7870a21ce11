"""Multi-head attention with grouped key/value heads, an optional key/value cache, and softmax in float32."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.nn import cache as cache_lib
from rgjax.nn import fused, param, positions
from rgjax.nn.cache import HeadCache
from rgjax.nn.linear import linear
from rgjax.nn.norms import Norm
from rgjax.nn.segments import Segments

QUERY_BLOCK = 104  # queries scored together by `attend_rows`


class LayerCache(NamedTuple):
    """Keys and values already computed, [B, S, K, A] each."""

    k: jax.Array
    v: jax.Array

    def written(self, new: LayerCache, at: jax.Array) -> LayerCache:
        """With the keys and values `new` [B, T, K, A] of T positions from `at` (int32 scalar) on."""
        put = lambda old, n: jax.lax.dynamic_update_slice(old, n.astype(old.dtype), (0, at, 0, 0))
        return LayerCache(put(self.k, new.k), put(self.v, new.v))


def chosen(config: ModelConfig) -> str:
    """How whole sequences are attended here: 'plain', 'rows' or 'cudnn', as --attention says or, with 'auto', whichever is fastest.

    On a single CPU device that is rows; rows spread over devices stay together. To be asked while the program is traced, which tells the mesh.
    """
    if config.attention != "auto":
        return config.attention
    if fused.devices() > 1:  # where cuDNN's was never run: --attention=cudnn insists
        return "plain"
    if not fused.missing(config):
        return "cudnn"
    return "rows" if jax.default_backend() == "cpu" else "plain"


def anywhere(choice: str) -> str:
    """--attention of a run, for a device that may not be the one it was trained on."""
    return "auto" if choice == "cudnn" else choice


def attend(q_BTHA: jax.Array, k_BSKA: jax.Array, v_BSKA: jax.Array, bias_BHTS: jax.Array, scale: float) -> jax.Array:
    """softmax(q k^T * scale + bias) v, [B, T, H, A]; each key head serves H / K consecutive query heads."""
    b, t, h, a = q_BTHA.shape
    kv = k_BSKA.shape[2]
    q = (q_BTHA * scale).reshape(b, t, kv, h // kv, a)
    scores = jnp.einsum("btkga,bska->bkgts", q, k_BSKA, preferred_element_type=jnp.float32)
    bias = bias_BHTS[:, :, None] if bias_BHTS.shape[1] == 1 else bias_BHTS.reshape(-1, kv, h // kv, *bias_BHTS.shape[2:])
    weights = jax.nn.softmax(scores + bias, axis=-1).astype(v_BSKA.dtype)
    return jnp.einsum("bkgts,bska->btkga", weights, v_BSKA).reshape(b, t, h, a)


def attend_rows(q_BTHA, k_BSKA, v_BSKA, bias_BHTS, scale: float, causal: bool) -> jax.Array:
    """As `attend`, one row of the batch after another, the scores recomputed in the backward pass.

    Scores of one row stay in a CPU's cache and those of the batch are never held (`profiling/step.py` measures the gain). If `causal`
    (and T = S) the queries go in blocks that skip the keys after them.
    """
    length, group = q_BTHA.shape[1], q_BTHA.shape[2] // k_BSKA.shape[2]
    causal = causal and length == k_BSKA.shape[1]
    block = QUERY_BLOCK if causal else length

    @jax.checkpoint
    def row(q_THA, k_SKA, v_SKA, bias_HTS):
        k_SHA, v_SHA = jnp.repeat(k_SKA, group, axis=1), jnp.repeat(v_SKA, group, axis=1)
        parts = []
        for start in range(0, length, block):
            t, s = slice(start, start + block), slice(0, start + block if causal else None)
            scores = jnp.einsum("tha,sha->hts", q_THA[t] * scale, k_SHA[s], preferred_element_type=jnp.float32)
            weights = jax.nn.softmax(scores + bias_HTS[:, t, s], axis=-1).astype(v_SHA.dtype)
            parts.append(jnp.einsum("hts,sha->tha", weights, v_SHA[s]))
        return jnp.concatenate(parts, axis=0)

    bias_BHTS = jnp.broadcast_to(bias_BHTS, (q_BTHA.shape[0], *bias_BHTS.shape[1:]))
    return jax.lax.map(lambda args: row(*args), (q_BTHA, k_BSKA, v_BSKA, bias_BHTS))


class Attention(nnx.Module):
    """Self- or cross-attention: x [B, T, D] reads `source` [B, S, D] (x itself by default)."""

    def __init__(self, config: ModelConfig, key: jax.Array, cross: bool = False, causal: bool = True):
        self.config, self.causal = config, causal and not cross
        d, h = config.width, config.heads
        kv, a = config.kv_heads or h, config.head_dim or d // h
        # T5 leaves scores unscaled and draws queries smaller instead; the two differ only in the initial weights.
        self.scale = 1.0 if config.positions == "relative" else a**-0.5
        self.rotates = config.positions == "rotary" and not cross
        keys = jax.random.split(key, 4)
        self.wq = param.normal(keys[0], (d, h, a), ("embed", "heads", None), d**-0.5 * (a**-0.5 if self.scale == 1.0 else 1.0))
        self.wk = param.fan_in(keys[1], (d, kv, a), ("embed", "kv_heads", None), d)
        self.wv = param.fan_in(keys[2], (d, kv, a), ("embed", "kv_heads", None), d)
        self.wo = param.fan_in(keys[3], (h, a, d), ("heads", None, "embed"), h * a * 2 * config.layers)
        zeros = lambda heads, axis: param.constant(0.0, (heads, a), (axis, None)) if config.bias or config.qkv_bias else None
        self.bq, self.bk, self.bv = zeros(h, "heads"), zeros(kv, "kv_heads"), zeros(kv, "kv_heads")
        self.bo = param.constant(0.0, (d,), (None,)) if config.bias else None
        self.q_norm = Norm(a, "rmsnorm", config.norm_eps) if config.qk_norm else None
        self.k_norm = Norm(a, "rmsnorm", config.norm_eps) if config.qk_norm else None

    def keys_values(self, source_BSD: jax.Array, rope=None) -> LayerCache:
        """Keys and values of `source`, each [B, S, K, A]."""
        k, v = linear(source_BSD, self.wk[...], bias=self.bk), linear(source_BSD, self.wv[...], bias=self.bv)
        if self.k_norm is not None:
            k = self.k_norm(k)
        return LayerCache(positions.rotate(k, rope) if self.rotates else k, v)

    def weights(self, x_BTD, bias_BHTS, rope=None) -> jax.Array:
        """How much each position reads of each: float32 [B, H, T, S], rows that sum to 1."""
        q, k = linear(x_BTD, self.wq[...], bias=self.bq), self.keys_values(x_BTD, rope).k
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.rotates:
            q = positions.rotate(q, rope)
        k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
        return jax.nn.softmax(jnp.einsum("btha,bsha->bhts", q * self.scale, k, preferred_element_type=jnp.float32) + bias_BHTS, axis=-1)

    def __call__(self, x_BTD, bias_BHTS, rope=None, cache: LayerCache | HeadCache | None = None, write_at=None, prefix: HeadCache | None = None):
        """Returns (output [B, T, D], keys and values read). With Segments for a bias the fused kernel attends.

        Without `write_at`, `cache` is what is read (cross-attention) or, if None, x's own keys and values. With
        `write_at` (int32 scalar) x's keys and values are first written into `cache` at that position. `prefix` is read before
        `cache`, a HeadCache then, and may serve several rows each (`cache.attend_heads`).
        """
        q = linear(x_BTD, self.wq[...], bias=self.bq)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.rotates:
            q = positions.rotate(q, rope)
        if cache is None or write_at is not None:
            new = self.keys_values(x_BTD, rope)
            if isinstance(cache, HeadCache):
                new = cache_lib.write(cache, new, write_at)
            elif cache is not None:
                new = cache.written(new, write_at)
            cache = new
        if isinstance(bias_BHTS, Segments):
            out = fused.attend_cudnn(q, cache.k, cache.v, bias_BHTS, self.scale)
        elif isinstance(cache, HeadCache):
            out = cache_lib.attend_heads(q, [cache] if prefix is None else [prefix, cache], bias_BHTS, self.scale)
        elif q.shape[1] > 1 and chosen(self.config) == "rows":
            out = attend_rows(q, cache.k, cache.v, bias_BHTS, self.scale, self.causal)
        else:
            out = attend(q, cache.k, cache.v, bias_BHTS, self.scale)
        return linear(out, self.wo[...], axes=2, bias=self.bo), cache
