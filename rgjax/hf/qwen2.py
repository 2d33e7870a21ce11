"""Qwen2ForCausalLM: Llama with biases on queries, keys and values."""

from __future__ import annotations

import dataclasses

from rgjax.hf import llama

FAMILY = dataclasses.replace(
    llama.FAMILY, name="qwen2", model_class="Qwen2ForCausalLM", shape=llama.SHAPE | {"qkv_bias": True},
    fixed={"hidden_act": "silu", "use_sliding_window": False},
)  # fmt: skip
