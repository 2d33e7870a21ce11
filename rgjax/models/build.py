"""From a configuration to a model."""

from __future__ import annotations

from collections.abc import Callable

import jax
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.models.causal import CausalLM
from rgjax.models.encoder import TextEncoder
from rgjax.models.seq2seq import Seq2Seq

ARCHITECTURES = {"causal": CausalLM, "seq2seq": Seq2Seq, "encoder": TextEncoder}


def build(config: ModelConfig, vocab_size: int, key: jax.Array) -> CausalLM | Seq2Seq | TextEncoder:
    """The configured model with fresh float32 weights; raises UserError when the shapes do not fit."""
    return ARCHITECTURES[config.architecture](config, vocab_size, key)


class ModelFactory:
    """Turns parameters into a model and back, for one configuration."""

    def __init__(self, config: ModelConfig, vocab_size: int, make: Callable = build):
        """`make(config, vocab_size, key)` gives the model with fresh weights."""
        self.config, self.vocab_size, self.make = config, vocab_size, make
        abstract = nnx.eval_shape(lambda: make(config, vocab_size, jax.random.key(0)))
        self.graph, self.abstract = nnx.split(abstract, nnx.Param)

    @property
    def base(self) -> ModelFactory:
        """Itself: the factory of the model's own parameters."""
        return self

    def model(self, params: dict, vectors_BMZ: jax.Array | None = None):
        """The model holding `params`; `vectors_BMZ` mean nothing to it."""
        state = jax.tree.map(lambda v: v, self.abstract)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self.graph, state)

    def fresh(self, key: jax.Array, given: dict | None = None) -> dict:
        """The parameters `given`, or fresh ones, as a plain dict."""
        return given or nnx.to_pure_dict(nnx.state(self.make(self.config, self.vocab_size, key), nnx.Param))

    def count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(self.abstract)))
