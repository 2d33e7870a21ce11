"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): the embeddings of an example's first N positions are trained, or computed
from a vector that comes with the example (as in PEPLER, Li et al. 2023, arXiv:2202.07371), instead of looked up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn import param
from rgjax.nn.linear import linear


def parameters(tokens: int, width: int, vector_width: int, key: jax.Array, table_VD: jax.Array | None) -> dict:
    """`table` [N, D] or, with vectors of Z entries, a network `w_in` [Z, D], `b_in`, `w_out` [D, N * D], `b_out` that makes one.

    At first they are embeddings of random tokens (Lester et al., section 3.2), whatever the vectors.
    """
    keys = jax.random.split(key, 3)
    drawn = jnp.zeros((tokens, width))
    if table_VD is not None:
        drawn = table_VD[jax.random.randint(keys[0], (tokens,), 0, table_VD.shape[0])]
    if not vector_width:
        return {"table": nnx.Param(drawn, axes=(None, "embed"))}
    return {
        "w_in": param.fan_in(keys[1], (vector_width, width), (None, "embed"), vector_width),
        "b_in": param.constant(0.0, (width,), (None,)),
        "w_out": param.normal(keys[2], (width, tokens * width), ("embed", None), 0.1 * width**-0.5 * 0.02),
        "b_out": nnx.Param(drawn.reshape(-1), axes=(None,)),
    }


def virtual(values: dict, tokens: int, vectors_BMZ: jax.Array | None) -> jax.Array:
    """The virtual tokens' embeddings: [N, D], or [B, M, N, D] for M examples a row."""
    if "table" in values:
        return values["table"]
    hidden = jnp.tanh(linear(vectors_BMZ, values["w_in"]) + values["b_in"])
    made = linear(hidden, values["w_out"]) + values["b_out"]
    return made.reshape(*made.shape[:-1], tokens, -1)


class Prompted(nnx.Module):
    """A token embedding, called as it is, in which an example's positions below N hold virtual tokens.

    Every example starts with N placeholders, so packing, padding and positions need nothing of their own.
    """

    def __init__(self, inner, tokens: int, values: dict, vectors_BMZ=None, segments_BT=None):
        """`segments_BT` (1-based, 0 padding) say which of a row's M vectors a position belongs to; without them, the first."""
        self.inner, self.count = inner, tokens
        self.made, self.segments = nnx.data(virtual(values, tokens, vectors_BMZ)), nnx.data(segments_BT)

    @property
    def tokens(self):
        """The token table."""
        return self.inner.tokens

    def head(self) -> tuple[jax.Array, float]:
        """As the embedding's."""
        return self.inner.head()

    def vectors(self, tokens_BT: jax.Array, shift_BTD: jax.Array | None = None) -> jax.Array:
        """As the embedding's."""
        return self.inner.vectors(tokens_BT, shift_BTD)

    def __call__(self, tokens_BT: jax.Array, positions_BT: jax.Array, key=None, shift_BTD: jax.Array | None = None) -> jax.Array:
        """Embeddings [B, T, D] in the compute type; `shift_BTD` moves virtual tokens too."""
        x, place_BT = self.inner.vectors(tokens_BT), jnp.minimum(positions_BT, self.count - 1)
        if self.made.ndim == 2:
            chosen = self.made[place_BT]
        else:
            which_BT = jnp.zeros_like(tokens_BT) if self.segments is None else jnp.maximum(self.segments - 1, 0)
            chosen = self.made[jnp.arange(len(tokens_BT))[:, None], which_BT, place_BT]
        x = jnp.where((positions_BT < self.count)[..., None], chosen.astype(x.dtype), x)
        x = x if shift_BTD is None else x + shift_BTD
        return self.inner.enter(x, positions_BT, key)
