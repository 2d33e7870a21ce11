"""A one-layer LSTM that predicts token after token (Hochreiter & Schmidhuber 1997), as text GANs are compared with (Yu et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn import param

START = 0  # what is fed before the first token; it may also be written


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Sizes, and the standard deviation of fresh parameters."""

    width: int = 32
    hidden: int = 32
    std: float = 0.1


class Memory(NamedTuple):
    """What an LSTM keeps of the tokens it was fed, float32 [B, H] each."""

    hidden: jax.Array
    cell: jax.Array


class LSTM(nnx.Module):
    """Tokens -> logits of the next; every parameter starts at N(0, std^2)."""

    def __init__(self, config: LSTMConfig, vocab_size: int, key: jax.Array):
        self.config, keys = config, iter(jax.random.split(key, 6))
        make = lambda *shape_and_axes: param.normal(next(keys), *zip(*shape_and_axes, strict=True), config.std)
        v, e, h = (vocab_size, "vocab"), (config.width, "embed"), (config.hidden, None)
        gates = (4 * config.hidden, None)  # input, forget, output, candidate
        self.tokens = make(v, e)
        self.w_in, self.w_hidden, self.b_in = make(e, gates), make(h, gates), make(gates)
        self.output, self.b_vocab = make(h, v), make(v)

    def begin(self, rows: int) -> Memory:
        """The memory of `rows` texts that have been fed the start token."""
        nothing = jnp.zeros((rows, self.config.hidden), jnp.float32)
        return self.advance(Memory(nothing, nothing), jnp.broadcast_to(self.tokens[START], (rows, self.config.width)))

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Vectors [..., E] of token ids."""
        return self.tokens[...][tokens]

    def advance(self, memory: Memory, x_BE: jax.Array) -> Memory:
        """The memory after a further token, given by its vector."""
        gates = x_BE @ self.w_in[...] + memory.hidden @ self.w_hidden[...] + self.b_in[...]
        i, f, o, candidate = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * memory.cell + jax.nn.sigmoid(i) * jnp.tanh(candidate)
        return Memory(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Float32 scores [..., V] of the next token from hidden states [..., H]."""
        return hidden @ self.output[...] + self.b_vocab[...]

    def memories(self, tokens_BT: jax.Array) -> Memory:
        """[T, B, H]: the memory before each of the tokens; `logits` of its hidden states score them."""

        def body(memory, x_BE):
            return self.advance(memory, x_BE), memory

        return jax.lax.scan(body, self.begin(len(tokens_BT)), jnp.moveaxis(self.embed(tokens_BT), 1, 0))[1]

    def log_probs(self, tokens_BT: jax.Array) -> jax.Array:
        """log p(token | those before), float32 [B, T], nats."""
        logits_TBV = self.logits(self.memories(tokens_BT).hidden)
        picked = jnp.take_along_axis(logits_TBV, tokens_BT.T[..., None], axis=-1)[..., 0]
        return (picked - jax.nn.logsumexp(logits_TBV, axis=-1)).T
