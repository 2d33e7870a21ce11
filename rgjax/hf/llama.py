"""LlamaForCausalLM: rotary positions, RMSNorm, SwiGLU, no biases."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf.table import Family, Rule, attention_rules
from rgjax.nn.feedforward import hidden_width


def shape_refusal(c: ModelConfig) -> str | None:
    """Why a model is not of Llama's shape at all (shared with Qwen3)."""
    if c.architecture != "causal":
        return "it is an encoder-decoder"
    for name, wanted in (("positions", "rotary"), ("norm", "rmsnorm"), ("activation", "swiglu"), ("bias", False)):
        if getattr(c, name) != wanted:
            return f"it has --{name}={getattr(c, name)}, not {wanted}"
    return None


def refuses(c: ModelConfig) -> str | None:
    return shape_refusal(c) or ("it normalises queries and keys (Qwen3)" if c.qk_norm else None)


def base_config(c: ModelConfig, vocab_size: int) -> dict:
    """Fields of config.json that Llama and Qwen3 share."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": c.width,
        "intermediate_size": hidden_width(c),
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads or c.heads,
        "head_dim": c.head_dim or c.width // c.heads,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": c.tied,
        "attention_bias": False,
        "attention_dropout": 0.0,
        # transformers 5 reads the first, 4.57 the second; with only the first it silently takes 10000.
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "rope_theta": c.rope_theta,
        "use_cache": True,
    }


def config(c: ModelConfig, vocab_size: int) -> dict:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False, **base_config(c, vocab_size)}


def rules(c: ModelConfig) -> list[Rule]:
    ours, theirs = "decoder.blocks", "model.layers.{i}"
    return [
        Rule("embedding.tokens", "model.embed_tokens.weight"),
        Rule(f"{ours}.norm_attention.scale", f"{theirs}.input_layernorm.weight"),
        *attention_rules(f"{ours}.attention", f"{theirs}.self_attn"),
        Rule(f"{ours}.norm_mlp.scale", f"{theirs}.post_attention_layernorm.weight"),
        Rule(f"{ours}.mlp.w_gate", f"{theirs}.mlp.gate_proj.weight", "linear"),
        Rule(f"{ours}.mlp.w_in", f"{theirs}.mlp.up_proj.weight", "linear"),
        Rule(f"{ours}.mlp.w_out", f"{theirs}.mlp.down_proj.weight", "linear"),
        Rule("decoder.norm.scale", "model.norm.weight"),
        *([] if c.tied else [Rule("embedding.output", "lm_head.weight")]),
    ]


FAMILY = Family("llama", refuses, config, rules)
