"""LlamaForCausalLM: rotary positions, RMSNorm, SwiGLU, no biases."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.hf.table import Family, Rule, attention_rules, bottleneck_places

SHAPE = {"positions": "rotary", "norm": "rmsnorm", "activation": "swiglu"}
FIELDS = {
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied",
}
DEFAULTS = {"num_key_value_heads": 0, "head_dim": 0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
COPIES = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (".rotary_emb.inv_freq",)


def rope(c: ModelConfig) -> dict:
    """Rotary fields: transformers 5 reads the first, 4.57 the second; with only the first it silently takes 10000."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta}, "rope_theta": c.rope_theta, "attention_dropout": 0.0}


def options(body: dict) -> dict:
    """The rotary base; raises UserError on rescaled frequencies and on layers that attend to a window."""
    found, old = body.get("rope_parameters") or {}, body.get("rope_scaling") or {}  # transformers 5, and 4
    for part in (found, old, {"partial_rotary_factor": body.get("partial_rotary_factor") or 1.0}):
        if not isinstance(part, dict):
            raise UserError(f"config.json says rope scaling {part!r}, and rgjax computes plain rotary positions only; use a model without it.")
        kind = part.get("rope_type") or part.get("type") or "default"
        if (factor := part.get("partial_rotary_factor", 1.0)) != 1.0:
            raise UserError(f"config.json says partial_rotary_factor={factor!r}, and rgjax computes 1.0 only; use another model.")
        if kind != "default":
            raise UserError(f"config.json says rope scaling '{kind}', and rgjax computes plain rotary positions only; use a model without it.")
    if other := sorted(set(body.get("layer_types") or ()) - {"full_attention"}):
        raise UserError(f"config.json says layer_types '{other[0]}', and rgjax computes full_attention only; use another model.")
    return {"rope_theta": float(found.get("rope_theta", body.get("rope_theta", 10000.0)))}


def rules(c: ModelConfig) -> list[Rule]:
    ours, theirs = "decoder.blocks", "model.layers.{i}"
    return [
        Rule("embedding.tokens", "model.embed_tokens.weight"),
        Rule(f"{ours}.norm_attention.scale", f"{theirs}.input_layernorm.weight"),
        *attention_rules(f"{ours}.attention", f"{theirs}.self_attn", bias="qkv" if c.qkv_bias else ""),
        Rule(f"{ours}.norm_mlp.scale", f"{theirs}.post_attention_layernorm.weight"),
        Rule(f"{ours}.mlp.w_gate", f"{theirs}.mlp.gate_proj.weight", "linear"),
        Rule(f"{ours}.mlp.w_in", f"{theirs}.mlp.up_proj.weight", "linear"),
        Rule(f"{ours}.mlp.w_out", f"{theirs}.mlp.down_proj.weight", "linear"),
        Rule("decoder.norm.scale", "model.norm.weight"),
        *([] if c.tied else [Rule("embedding.output", "lm_head.weight")]),
    ]


FAMILY = Family(
    "llama", "LlamaForCausalLM", SHAPE, {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}, FIELDS, rules,
    defaults=DEFAULTS, more=rope, options=options, copies=COPIES, ignored=IGNORED, prefix="model.",
    bottlenecks={"decoder": bottleneck_places("model.layers.{i}")},
)  # fmt: skip
