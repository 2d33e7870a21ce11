"""From a configuration to a model."""

from __future__ import annotations

import jax

from rgjax.config import ModelConfig
from rgjax.models.causal import CausalLM
from rgjax.models.seq2seq import Seq2Seq

ARCHITECTURES = {"causal": CausalLM, "seq2seq": Seq2Seq}


def build(config: ModelConfig, vocab_size: int, key: jax.Array) -> CausalLM | Seq2Seq:
    """The configured model with fresh float32 weights; raises UserError when the shapes do not fit."""
    return ARCHITECTURES[config.architecture](config, vocab_size, key)
