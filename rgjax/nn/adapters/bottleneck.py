"""Bottleneck adapters: Houlsby et al. 2019 (arXiv:1902.00751), after attention and feed-forward, and Pfeiffer et al. 2020
(arXiv:2005.00247), after the feed-forward alone and reading the stream."""

from __future__ import annotations

import jax
from flax import nnx

from rgjax.config import AdapterConfig
from rgjax.nn import param
from rgjax.nn.feedforward import ACTIVATIONS
from rgjax.nn.linear import linear

ACTIVATION = {"houlsby": "swish", "pfeiffer": "relu"}  # as AdapterHub's two presets
_FUNCTIONS = {"swish": jax.nn.silu, "relu": ACTIVATIONS["relu"]}


def width(config: AdapterConfig, model_width: int) -> int:
    """R: the model's width over the reduction factor."""
    return max(1, model_width // config.reduction)


def parameters(layers: int, model_width: int, config: AdapterConfig, key: jax.Array) -> dict:
    """`down` [L, D, R], `b_down` [L, R], `up` [L, R, D], `b_up` [L, D]; nothing is added at first."""
    d, r = model_width, width(config, model_width)
    return {
        "down": param.normal(key, (layers, d, r), (None, "embed", None), 0.02),
        "b_down": param.constant(0.0, (layers, r), (None, None)),
        "up": param.constant(0.0, (layers, r, d), (None, None, "embed")),
        "b_up": param.constant(0.0, (layers, d), (None, None)),
    }


class Bottleneck(nnx.Module):
    """Wraps a sub-layer or a block, called as it is: its output y [B, T, D] becomes y + up(act(down(y)))."""

    def __init__(self, inner, values: dict, style: str):
        self.inner, self.act = inner, ACTIVATION[style]
        self.down, self.b_down, self.up, self.b_up = (nnx.data(values[name]) for name in ("down", "b_down", "up", "b_up"))

    @property
    def cross(self):
        """The block's cross-attention."""
        return self.inner.cross

    def keys_values(self, *args) -> object:
        """The attention's."""
        return self.inner.keys_values(*args)

    def __call__(self, *args, **kwargs):
        """The inner call's result; what comes beside the output (an attention's or a block's keys and values) is passed on."""
        result = self.inner(*args, **kwargs)
        return (self._added(result[0]), *result[1:]) if isinstance(result, tuple) else self._added(result)

    def _added(self, y: jax.Array) -> jax.Array:
        h = _FUNCTIONS[self.act](linear(y, self.down) + self.b_down.astype(y.dtype))
        return y + linear(h, self.up) + self.b_up.astype(y.dtype)
