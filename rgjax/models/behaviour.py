"""A model of behaviour: a shopper's events in order, and what they take next."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.models.transformer import Entrance, Stack, check_shapes
from rgjax.nn import param
from rgjax.nn.attention import LayerCache
from rgjax.nn.linear import linear
from rgjax.nn.segments import Segments, segment_bias
from rgjax.parallel import sharding

ROWS = 64  # the item table has a multiple of so many rows, so that a mesh divides it


def table_rows(items: int) -> int:
    """Rows of an item table; those beyond the items are never a target."""
    return -(-items // ROWS) * ROWS


class EventEmbedding(Entrance):
    """Item table [V, D], a small table for each further feature of an event, and a matrix for item vectors [Z, D]."""

    def __init__(self, config: ModelConfig, key: jax.Array, rows: int, features: dict[str, int], vector_width: int):
        keys = jax.random.split(key, 4 + len(features))
        super().__init__(config, keys[1])
        self.tokens = param.normal(keys[0], (rows, config.width), ("items", None), config.init_std)
        self.output = None if config.tied else param.normal(keys[2], (rows, config.width), ("items", None), config.init_std)
        draw = lambda key, size: param.normal(key, (size, config.width), (None, None), config.init_std)
        self.features = nnx.data({name: draw(k, size) for k, (name, size) in zip(keys[4:], features.items(), strict=True)})
        self.w_vector = param.fan_in(keys[3], (vector_width, config.width), (None, None), vector_width) if vector_width else None

    def __call__(self, batch: dict[str, jax.Array], key=None) -> jax.Array:
        """[B, T, D] in the compute type."""
        x = self.tokens[...][batch["tokens"]]
        for name, table in self.features.items():
            x = x + table[...][batch[name]]
        if self.w_vector is not None:
            x = x + linear(batch["vector"], self.w_vector[...])
        return self.enter(x, batch["positions"], key)


class BehaviourModel(nnx.Module):
    """Events -> hidden states from which the next item is scored (SASRec: Kang & McAuley 2018, arXiv:1808.09781)."""

    def __init__(self, config: ModelConfig, rows: int, key: jax.Array, features: dict[str, int], vector_width: int = 0):
        """`rows` is the size of the item table, `features` the sizes of the other tables by the batch's field."""
        check_shapes(config)
        self.config, keys = config, jax.random.split(key, 2)
        self.embedding = EventEmbedding(config, keys[0], rows, features, vector_width)
        self.decoder = Stack(config, keys[1], config.layers)

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """A batch of rgjax/data/behaviour.py [B, T] -> hidden [B, T, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        return self.read(sharding.by_rows(self.embedding(batch, keys[0])), batch, keys[1])

    def read(self, x_BTD: jax.Array, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """From the events' embeddings to hidden states, both [B, T, D]."""
        seen = Segments.of(batch, causal=True)
        return self.decoder(x_BTD, seen, batch["positions"], key=key)

    def decode(self, batch: dict[str, jax.Array], caches: Sequence[LayerCache], write_at: jax.Array) -> tuple[jax.Array, list[LayerCache]]:
        """(hidden [B, T, D] of further events, the caches with theirs written from position `write_at` on).

        `caches` hold the events before, [B, S, K, A] a layer; each row is one shopper, and what lies at or after `write_at` is not read.
        """
        mask = segment_bias(jnp.ones_like(batch["positions"]), jnp.ones((1, caches[0].k.shape[1]), jnp.int32), causal=True, first=write_at)
        return self.decoder.decode(self.embedding(batch), mask, batch["positions"], caches, write_at)

    def head(self) -> tuple[jax.Array, float]:
        """The output matrix [V, D] and the factor on hidden states before it."""
        table = self.embedding.tokens if self.embedding.output is None else self.embedding.output
        return table[...], 1.0

    def user_vectors(self, batch: dict[str, jax.Array]) -> jax.Array:
        """Float32 [B, D] from the last event of each row (a row is one shopper)."""
        return at_last(self(batch), batch)

    def attention(self, batch: dict[str, jax.Array]) -> jax.Array:
        """How much the last event of each row reads of each event, mean over layers and heads; float32 [B, T], rows that sum to 1."""
        mask = segment_bias(batch["segment_ids"], batch["segment_ids"], causal=True)
        weights_BTS = self.decoder.attention(self.embedding(batch), mask, batch["positions"]).mean((0, 2))
        return at_last(weights_BTS, batch)


def at_last(x_BTD: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Float32 [B, D]: the entries at the last event of each row, which is one shopper's."""
    last = jnp.maximum(batch["segment_ids"].sum(1) - 1, 0)
    return jnp.take_along_axis(x_BTD, last[:, None, None], axis=1)[:, 0].astype(jnp.float32)
