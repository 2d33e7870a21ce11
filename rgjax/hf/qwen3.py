"""Qwen3ForCausalLM: Llama with a norm on each query and key head."""

from __future__ import annotations

import dataclasses

from rgjax.config import ModelConfig
from rgjax.hf import llama
from rgjax.hf.table import Rule


def rules(c: ModelConfig) -> list[Rule]:
    heads = [Rule(f"decoder.blocks.attention.{x}_norm.scale", f"model.layers.{{i}}.self_attn.{x}_norm.weight") for x in "qk"]
    return llama.rules(c) + heads


FAMILY = dataclasses.replace(
    llama.FAMILY, name="qwen3", model_class="Qwen3ForCausalLM", shape=llama.SHAPE | {"qk_norm": True}, rules=rules,
    fixed={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}, defaults=llama.DEFAULTS | {"head_dim": 128}, bottlenecks={},
)  # fmt: skip
