"""Decoder-only generator: prompt and reason are one sequence."""

from __future__ import annotations

import jax
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.models.transformer import Block, Embedding, Stack, check_shapes
from rgjax.nn.attention import LayerCache
from rgjax.nn.cache import HeadCache
from rgjax.nn.segments import Segments


class CausalLM(nnx.Module):
    """Tokens -> hidden states from which the next token is scored."""

    def __init__(self, config: ModelConfig, vocab_size: int, key: jax.Array):
        check_shapes(config)
        self.config, keys = config, jax.random.split(key, 2)
        self.embedding = Embedding(config, keys[0], vocab_size)
        self.decoder = Stack(config, keys[1], config.layers)

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """batch: `tokens`, `segment_ids` (0 = padding), `positions`, all int32 [B, T] -> hidden [B, T, D], or [B, N, D] with `asked`, positions
        [B, N]; `shift` [B, T, D] moves token vectors."""
        keys = (None, None) if key is None else jax.random.split(key)
        x = self.embedding(batch["tokens"], batch["positions"], keys[0], batch.get("shift"))
        seen = Segments.of(batch, causal=True)
        return self.decoder(x, seen, batch["positions"], key=keys[1], asked_BN=batch.get("asked"))

    def blocks(self) -> list[Block]:
        """The decoder's blocks, cut out of their stack."""
        return [self.decoder.block(i) for i in range(self.decoder.depth)]

    def decode(
        self, tokens_BT, positions_BT, mask_B1TS, caches: list[LayerCache] | list[HeadCache], write_at,
        prefixes: list[HeadCache] | None = None, blocks: list[Block] | None = None, newest: bool = False,
    ):  # fmt: skip
        """Hidden states [B, T, D] of new tokens, which are written into `caches` at `write_at`; returns them (with `newest` [B, 1, D], those of
        the last, of a prompt) with the caches.

        `prefixes` (the prompt's keys and values) come before the caches; the mask covers both. `blocks` are what `blocks()` gave.
        """
        x = self.embedding(tokens_BT, positions_BT)
        return self.decoder.decode(x, mask_B1TS, positions_BT, caches, write_at, blocks=blocks, prefixes=prefixes, newest=newest)

    def head(self) -> tuple[jax.Array, float]:
        """The output matrix [V, D] and the factor on hidden states before it."""
        return self.embedding.head()
