"""A model of bundles: what goes with a set of items, and which sets suit a user."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.models.transformer import Stack, check_shapes
from rgjax.nn import param
from rgjax.nn.dropout import dropout
from rgjax.nn.segments import segment_bias

CONTENT = "content"  # the path of the one parameter that is given, not trained
PARTS = ("learned", "text", "beside", "user_items", "user_bundles", "own")  # of an item's score beside a set
MATCHES = ("items", "bundles", "text", "shared")  # of a bundle's score for a user
_INITIAL = (5.0, 8.0, 5.0, 2.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0)


class Views(NamedTuple):
    """Of a batch of sets; vectors have length 1, or are zeros where there is nothing to look at.

    `bundle` [B, D] is the set by its items (bundle-item view), `user_items` [B, D] its user by what they had (user-item), `user_bundles`
    [B, D] by their other bundles (user-bundle); `text` and `user_text` [B, Z] are the mean descriptions of the set and of what the user had;
    `held` and `own` [B, V] are 1 at the items of the set and at those its user had, `beside` [B, V] is how much other bundles hold an item
    together with the set's.
    """

    bundle: jax.Array
    user_items: jax.Array
    user_bundles: jax.Array
    text: jax.Array
    user_text: jax.Array
    held: jax.Array
    own: jax.Array
    beside: jax.Array


class BundleModel(nnx.Module):
    """One encoder of sets, three views (after CrossCBR, Ma et al. 2022, arXiv:2206.00242, which has a vector per bundle and user instead).

    An item is its description, projected, plus a vector of its own that begins at 0: an item nobody had yet is known by its description.
    """

    def __init__(self, config: ModelConfig, rows: int, key: jax.Array, text_width: int):
        """`rows` is the size of the item table V, `text_width` the width Z of the descriptions."""
        check_shapes(config)
        if config.positions == "relative" or config.block != "transformer":
            raise UserError("The items of a bundle have no order; leave --positions=relative and --block=pointwise out.")
        self.config, keys = config, jax.random.split(key, 2)
        self.content = param.constant(0.0, (rows, text_width), ("items", None))
        self.items = param.constant(0.0, (rows, config.width), ("items", None))
        self.w_content = param.fan_in(keys[0], (text_width, config.width), (None, "embed"), text_width)
        self.encoder = Stack(config, keys[1], config.layers, causal=False)
        self.gate = param.constant(0.0, (), ())
        self.strength = param.constant(0.0, (len(_INITIAL),), (None,))

    def strengths(self) -> jax.Array:
        """Float32 [P]: the weights of PARTS and MATCHES, above zero."""
        return jnp.asarray(_INITIAL) * jnp.exp(self.strength[...])

    def table(self, keep_V1: jax.Array | float = 1.0) -> jax.Array:
        """Item vectors [V, D] of length 1; where `keep_V1` is 0, by the description alone."""
        return unit(self.content[...] @ self.w_content[...] + keep_V1 * self.items[...])

    def encode(self, table_VD, tokens_NT, segments_NT, query_NZ, key=None) -> jax.Array:
        """Sets of items, each with a text (zeros for none), as vectors [N, D] of length 1; zeros where there is neither.

        The mean of the items, plus what the stack makes of them times a gate that begins at 0 (Bachlechner et al. 2021, arXiv:2003.04887).
        """
        x_NTD = jnp.concatenate([table_VD[tokens_NT], unit(query_NZ @ self.w_content[...])[:, None]], 1)
        told = jnp.any(query_NZ != 0, -1, keepdims=True).astype(segments_NT.dtype)
        segments_NT = jnp.concatenate([segments_NT, told], 1)
        x_NTD = dropout(x_NTD.astype(self.config.dtype), self.config.dropout, key)
        mask, nowhere = segment_bias(segments_NT, segments_NT, causal=False), jnp.zeros_like(segments_NT)
        deep_NTD = self.encoder(x_NTD * self.config.width**0.5, mask, nowhere, key=key)
        return unit(_mean(x_NTD, segments_NT) + self.gate[...] * _mean(deep_NTD, segments_NT))

    def views(self, batch: dict[str, jax.Array], table_VD: jax.Array, key: jax.Array | None = None) -> Views:
        """All views of a batch of rgjax/data/bundle_sets.py, in float32."""
        b, s, t = batch["sets"].shape
        texts = jnp.zeros((b, s, batch["query"].shape[1])).at[:, 0].set(batch["query"])
        flat = lambda x: x.reshape(b * s, -1)
        vectors = self.encode(table_VD, flat(batch["sets"]), flat(batch["encoder_segment_ids"]), flat(texts), key).reshape(b, s, -1)
        items, segments = batch["sets"][:, 0], batch["encoder_segment_ids"][:, 0]
        user_items = unit(_mean(table_VD[batch["own"]], batch["own_segments"]))
        text = unit(_mean(self.content[...][items], segments) + batch["query"])
        user_text = unit(_mean(self.content[...][batch["own"]], batch["own_segments"]))
        marks = ((items, segments), (batch["own"], batch["own_segments"]), (batch["beside"], batch["beside_weights"]))
        held_own_beside = (_marked(*mark, len(table_VD)) for mark in marks)
        return Views(vectors[:, 0], user_items, unit(vectors[:, 1:].sum(1)), text, user_text, *held_own_beside)

    def parts(self, views: Views, table_VD: jax.Array) -> dict[str, jax.Array]:
        """Float32 [B, V] each, by name in PARTS: what the score of every item beside each set is the sum of."""
        user = (views.user_items @ table_VD.T, views.user_bundles @ table_VD.T, views.own)
        found = (views.bundle @ table_VD.T, views.text @ self.content[...].T, views.beside, *user)
        return {name: weight * part for name, weight, part in zip(PARTS, self.strengths(), found, strict=False)}

    def matches(self, users: Views, bundles: Views) -> jax.Array:
        """Float32 [B, N]: scores for the users of B sets of the N sets `bundles`, the weighted sum of MATCHES."""
        shared = users.own @ bundles.held.T / jnp.maximum(bundles.held.sum(1), 1.0)
        sides = ((users.user_items, bundles.bundle), (users.user_bundles, bundles.bundle), (users.user_text, bundles.text))
        found = (*(one @ other.T for one, other in sides), shared)
        return sum(weight * part for weight, part in zip(self.strengths()[len(PARTS) :], found, strict=True))


def unit(x: jax.Array) -> jax.Array:
    """Float32 vectors [..., D] at length 1; zeros stay zeros, with a gradient of 0."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x * x, -1, keepdims=True)
    return jnp.where(square > 0, x * jax.lax.rsqrt(jnp.maximum(square, 1e-12)), 0.0)


def _mean(x_NTD: jax.Array, segments_NT: jax.Array) -> jax.Array:
    weights = (segments_NT > 0).astype(jnp.float32)
    return jnp.einsum("ntd,nt->nd", x_NTD.astype(jnp.float32), weights) / jnp.maximum(weights.sum(1, keepdims=True), 1.0)


def _marked(items_BT: jax.Array, weights_BT: jax.Array, rows: int) -> jax.Array:
    """Float32 [B, V]: the weights at their items; padding has weight 0 and falls outside."""
    places = jnp.where(weights_BT > 0, items_BT, rows)
    values = weights_BT.astype(jnp.float32)
    return jnp.zeros((len(items_BT), rows), jnp.float32).at[jnp.arange(len(items_BT))[:, None], places].set(values, mode="drop")
