"""Prefix tuning (Li & Liang 2021, arXiv:2101.00190): each layer attends to N trained keys and values before its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn.attention import Attention, LayerCache
from rgjax.nn.cache import HeadCache, by_head
from rgjax.nn.segments import Segments


class Prefixed(nnx.Module):
    """Self-attention whose keys begin with `k` and `v` [N, K, A], as they are: neither rotated nor normed. Called as Attention."""

    def __init__(self, inner: Attention, k, v):
        self.inner, self.k, self.v = inner, nnx.data(k), nnx.data(v)

    def keys_values(self, source_BSD: jax.Array, rope=None) -> LayerCache:
        """As Attention's: without the prefix."""
        return self.inner.keys_values(source_BSD, rope)

    def __call__(self, x_BTD, bias_BHTS, rope=None, cache: LayerCache | None = None, write_at=None, prefix: HeadCache | None = None):
        """Returns (output [B, T, D], keys and values without the prefix)."""
        n = self.k.shape[0]
        if isinstance(bias_BHTS, Segments):
            bias_BHTS = bias_BHTS.bias()
        bias = jnp.pad(bias_BHTS, ((0, 0), (0, 0), (0, 0), (n, 0)))  # a bias of 0: every query reads the whole prefix
        if prefix is not None:
            return self.inner(x_BTD, bias, rope, cache, write_at, self._before(prefix))
        own = self.keys_values(x_BTD, rope)
        if write_at is not None:
            put = lambda old, new: jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (0, write_at, 0, 0))
            own = LayerCache(put(cache.k, own.k), put(cache.v, own.v))
        y, _ = self.inner(x_BTD, bias, rope, cache=self._before(own))
        return y, own

    def _before(self, cache: LayerCache | HeadCache) -> LayerCache | HeadCache:
        own, axis = LayerCache(self.k[None], self.v[None]), 1
        if isinstance(cache, HeadCache):
            own, axis = by_head(own), 2
        join = lambda new, old: jnp.concatenate([jnp.broadcast_to(new.astype(old.dtype), (old.shape[0], *new.shape[1:])), old], axis=axis)
        return type(cache)(join(own.k, cache.k), join(own.v, cache.v))
