"""Qwen3ForCausalLM: Llama with a norm on each query and key head."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf import llama
from rgjax.hf.table import Family, Rule


def refuses(c: ModelConfig) -> str | None:
    return llama.shape_refusal(c) or (None if c.qk_norm else "it does not normalise queries and keys (--qk_norm)")


def config(c: ModelConfig, vocab_size: int) -> dict:
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False, "sliding_window": None,
        **llama.base_config(c, vocab_size),
    }  # fmt: skip


def rules(c: ModelConfig) -> list[Rule]:
    heads = [Rule(f"decoder.blocks.attention.{x}_norm.scale", f"model.layers.{{i}}.self_attn.{x}_norm.weight") for x in "qk"]
    return llama.rules(c) + heads


FAMILY = Family("qwen3", refuses, config, rules)
