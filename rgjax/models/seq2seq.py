"""Encoder-decoder generator: the encoder reads shopper, history, item and control, the decoder writes the reason."""

from __future__ import annotations

import jax
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.models.transformer import Block, Embedding, Entrance, Stack, check_shapes
from rgjax.nn.attention import LayerCache
from rgjax.nn.cache import HeadCache
from rgjax.nn.dropout import dropout
from rgjax.nn.segments import Segments


class Seq2Seq(nnx.Module):
    """Encoder and decoder stacks over one embedding table, as in T5; each with positions of its own, as in BART."""

    def __init__(self, config: ModelConfig, vocab_size: int, key: jax.Array):
        check_shapes(config)
        self.config, keys = config, jax.random.split(key, 3)
        self.entrance = Entrance(config, jax.random.fold_in(key, 3))
        self.embedding = Embedding(config, keys[0], vocab_size)
        self.encoder = Stack(config, keys[1], config.encoder_layers or config.layers, causal=False)
        self.decoder = Stack(config, keys[2], config.layers, cross=True)

    def encode(self, batch: dict[str, jax.Array], key=None) -> jax.Array:
        """batch: `encoder_tokens`, `encoder_segment_ids`, `encoder_positions`, int32 [B, S] -> [B, S, D].

        `encoder_shift` [B, S, D], where there is one, moves the token vectors.
        """
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        x = self.embedding(batch["encoder_tokens"], batch["encoder_positions"], keys[0], batch.get("encoder_shift"))
        seen = Segments.of(batch, causal=False, queries="encoder_", keys="encoder_")
        return dropout(self.encoder(x, seen, batch["encoder_positions"], key=keys[1]), self.config.dropout, keys[2])

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """batch: the encoder's fields, and `tokens`, `segment_ids`, `positions` int32 [B, T] -> hidden [B, T, D]; `shift` as in `encode`."""
        keys = (None,) * 3 if key is None else jax.random.split(key, 3)
        source = self.encode(batch, keys[0])
        x = self._enter(batch["tokens"], batch["positions"], keys[1], batch.get("shift"))
        seen = Segments.of(batch, causal=True)
        cross = Segments.of(batch, causal=False, keys="encoder_")
        return self.decoder(x, seen, batch["positions"], source, cross, key=keys[2])

    def _enter(self, tokens_BT: jax.Array, positions_BT: jax.Array, key=None, shift_BTD: jax.Array | None = None) -> jax.Array:
        return self.entrance.enter(self.embedding.vectors(tokens_BT, shift_BTD), positions_BT, key)

    def cross_caches(self, source_BSD: jax.Array) -> list[LayerCache]:
        """Each decoder layer's keys and values of the encoder's output, computed once per input."""
        return [self.decoder.block(i).cross.keys_values(source_BSD) for i in range(self.decoder.depth)]

    def blocks(self) -> list[Block]:
        """The decoder's blocks, cut out of their stack."""
        return [self.decoder.block(i) for i in range(self.decoder.depth)]

    def decode(
        self, tokens_BT, positions_BT, mask_B1TS, caches: list[LayerCache] | list[HeadCache], write_at, sources, source_bias,
        blocks: list[Block] | None = None,
    ):  # fmt: skip
        """As CausalLM.decode, reading the encoder through `sources` (from cross_caches) under `source_bias` [B, 1, 1, S]."""
        x = self._enter(tokens_BT, positions_BT)
        return self.decoder.decode(x, mask_B1TS, positions_BT, caches, write_at, blocks=blocks, sources=sources, source_bias=source_bias)

    def head(self) -> tuple[jax.Array, float]:
        """The output matrix [V, D] and the factor on hidden states before it."""
        return self.embedding.head()
