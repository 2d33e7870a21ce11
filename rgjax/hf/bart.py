"""BartForConditionalGeneration: layer norms after each sum and after the embeddings, learned positions with two unused rows."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.hf.table import Family, Rule, attention_rules, bottleneck_places, linear_rules, norm_rules

FIELDS = {
    "d_model": "width",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "layers",
    "encoder_attention_heads": "heads",
    "decoder_attention_heads": "heads",
    "encoder_ffn_dim": "mlp_width",
    "decoder_ffn_dim": "mlp_width",
    "max_position_embeddings": "max_positions",
}
SHAPE = {
    "architecture": "seq2seq", "positions": "learned", "position_offset": 2, "norm": "layernorm", "norm_eps": 1e-5, "bias": True,
    "post_norm": True, "embedding_norm": True, "tied": True,
}  # fmt: skip


def more(c: ModelConfig) -> dict:
    return {"is_encoder_decoder": True, "dropout": c.dropout, "attention_dropout": 0.0, "activation_dropout": 0.0, "forced_eos_token_id": None}


def options(body: dict) -> dict:
    """Nothing further; raises UserError where encoder and decoder differ in more than their depth."""
    for field in ("attention_heads", "ffn_dim"):
        if body[f"encoder_{field}"] != body[f"decoder_{field}"]:
            raise UserError(f"config.json has encoder_{field} and decoder_{field} unlike, and rgjax computes equal ones only; use another model.")
    return {}


def rules(c: ModelConfig) -> list[Rule]:
    found = [Rule("embedding.tokens", "model.shared.weight")]
    for stack, entrance in (("encoder", "embedding"), ("decoder", "entrance")):
        ours, theirs = f"{stack}.blocks", f"model.{stack}.layers.{{i}}"
        found.append(Rule(f"{entrance}.places", f"model.{stack}.embed_positions.weight"))
        found += norm_rules(f"{entrance}.norm", f"model.{stack}.layernorm_embedding")
        for attention, name in (("attention", "self_attn"), *((("cross", "encoder_attn"),) if stack == "decoder" else ())):
            found += attention_rules(f"{ours}.{attention}", f"{theirs}.{name}", "q_proj k_proj v_proj out_proj", bias="qkvo")
            found += norm_rules(f"{ours}.norm_{attention}", f"{theirs}.{name}_layer_norm")
        found += linear_rules(f"{ours}.mlp", "in", f"{theirs}.fc1") + linear_rules(f"{ours}.mlp", "out", f"{theirs}.fc2")
        found += norm_rules(f"{ours}.norm_mlp", f"{theirs}.final_layer_norm")
    return found


FAMILY = Family(
    "bart", "BartForConditionalGeneration", SHAPE, {"scale_embedding": False, "tie_word_embeddings": True}, FIELDS, rules,
    defaults={"activation_function": "gelu"}, activation_field="activation_function",
    activations={"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu"}, more=more, options=options,
    buffers=lambda rows: {"final_logits_bias": (1, rows)},
    copies=dict.fromkeys(("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"), "model.shared.weight"),
    prefix="model.",
    bottlenecks={stack: bottleneck_places(f"model.{stack}.layers.{{i}}") for stack in ("encoder", "decoder")},
)  # fmt: skip
