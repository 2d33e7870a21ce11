"""Position-wise feed-forward: plain, or gated (Shazeer 2020, arXiv:2002.05202)."""

from __future__ import annotations

import functools

import jax
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.nn import param
from rgjax.nn.linear import linear

ACTIVATIONS = {
    "swiglu": jax.nn.silu,
    "geglu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
GATED = ("swiglu", "geglu")


def hidden_width(config: ModelConfig) -> int:
    """The configured feed-forward width, or its default: 8/3 of the width if gated (a multiple of 16), else 4 times."""
    if config.mlp_width:
        return config.mlp_width
    return -(-config.width * 8 // 3 // 16) * 16 if config.activation in GATED else 4 * config.width


class FeedForward(nnx.Module):
    """x [B, T, D] -> [B, T, D] through F hidden units."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        d, f = config.width, hidden_width(config)
        keys = jax.random.split(key, 3)
        self.act = config.activation
        self.w_in = param.fan_in(keys[0], (d, f), ("embed", "mlp"), d)
        self.w_gate = param.fan_in(keys[1], (d, f), ("embed", "mlp"), d) if config.activation in GATED else None
        self.w_out = param.fan_in(keys[2], (f, d), ("mlp", "embed"), f * 2 * config.layers)
        self.b_in = param.constant(0.0, (f,), ("mlp",)) if config.bias else None
        self.b_out = param.constant(0.0, (d,), (None,)) if config.bias else None

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        h = linear(x_BTD, self.w_in[...], bias=self.b_in)
        act = ACTIVATIONS[self.act]
        # Computed again in the backward pass: what it would keep is as large as h, and a GPU's product computes some activations itself.
        if self.w_gate is not None:
            h = jax.checkpoint(lambda gate, h: act(gate) * h)(linear(x_BTD, self.w_gate[...]), h)
        else:
            h = jax.checkpoint(act)(h)
        return linear(h, self.w_out[...], bias=self.b_out)
