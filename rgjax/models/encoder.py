"""Text encoder: every token reads every other of its segment (BERT)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.models.transformer import Embedding, Stack, check_shapes
from rgjax.nn import param
from rgjax.nn.feedforward import ACTIVATIONS
from rgjax.nn.linear import linear
from rgjax.nn.norms import Norm
from rgjax.nn.segments import Segments


class TextEncoder(nnx.Module):
    """Tokens -> hidden states, with a head that scores masked tokens or one that pools the first position."""

    def __init__(self, config: ModelConfig, vocab_size: int, key: jax.Array):
        check_shapes(config)
        self.config, keys = config, jax.random.split(key, 3)
        self.embedding = Embedding(config, keys[0], vocab_size)
        self.encoder = Stack(config, keys[1], config.layers, causal=False)
        masked = config.encoder_head == "masked"
        self.w_head = param.fan_in(keys[2], (config.width, config.width), ("embed", None), config.width)
        self.b_head = param.constant(0.0, (config.width,), (None,))
        self.norm = Norm(config.width, config.norm, config.norm_eps) if masked else None
        self.b_vocab = param.constant(0.0, (vocab_size,), ("vocab",)) if masked else None

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """batch: `tokens`, `segment_ids` (0 = padding), `positions`, all int32 [B, T] -> hidden [B, T, D]."""
        keys = (None, None) if key is None else jax.random.split(key)
        x = self.embedding(batch["tokens"], batch["positions"], keys[0])
        seen = Segments.of(batch, causal=False)
        return self.encoder(x, seen, batch["positions"], key=keys[1])

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Float32 scores [B, T, V] of the token at each position (head 'masked')."""
        x = self.norm(ACTIVATIONS[self.config.activation](self._dense(hidden_BTD)))
        matrix, _ = self.embedding.head()
        return jnp.einsum("btd,vd->btv", x, matrix.astype(x.dtype), preferred_element_type=jnp.float32) + self.b_vocab[...]

    def pooled(self, hidden_BTD: jax.Array) -> jax.Array:
        """One vector [B, D] a row, from its first position (head 'pooled')."""
        return jnp.tanh(self._dense(hidden_BTD[:, 0]))

    def _dense(self, x: jax.Array) -> jax.Array:
        return linear(x, self.w_head[...]) + self.b_head[...].astype(x.dtype)


def sentence_vectors(hidden_BTD: jax.Array, mask_BT: jax.Array, pooling: str, normalize: bool) -> jax.Array:
    """One float32 vector [B, D] a row: the 'mean' over the tokens where `mask_BT` is set, or the first position ('cls').

    `normalize` divides by the Euclidean length. As sentence-transformers computes them (Reimers & Gurevych 2019, arXiv:1908.10084).
    """
    hidden_BTD = hidden_BTD.astype(jnp.float32)
    if pooling == "cls":
        x_BD = hidden_BTD[:, 0]
    else:
        weights_BT1 = mask_BT[..., None].astype(jnp.float32)
        x_BD = (hidden_BTD * weights_BT1).sum(1) / jnp.maximum(weights_BT1.sum(1), 1e-9)  # a text without tokens gives zeros
    return x_BD / jnp.maximum(jnp.linalg.norm(x_BD, axis=-1, keepdims=True), 1e-12) if normalize else x_BD
