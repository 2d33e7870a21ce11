"""GPT2LMHeadModel: learned positions, layer norms, biases; matrices lie [in, out], queries, keys and values in one."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf.table import Family, Rule, bottleneck_places, norm_rules

FIELDS = {
    "n_embd": "width",
    "n_inner": "mlp_width",
    "n_layer": "layers",
    "n_head": "heads",
    "n_positions": "max_positions",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tied",
}


def rules(c: ModelConfig) -> list[Rule]:
    ours, theirs = "decoder.blocks", "transformer.h.{i}"
    return [
        Rule("embedding.tokens", "transformer.wte.weight"),
        Rule("embedding.places", "transformer.wpe.weight"),
        *norm_rules(f"{ours}.norm_attention", f"{theirs}.ln_1"),
        *(Rule(f"{ours}.attention.w{x}", f"{theirs}.attn.c_attn.weight", "conv_in", (k, 3)) for k, x in enumerate("qkv")),
        *(Rule(f"{ours}.attention.b{x}", f"{theirs}.attn.c_attn.bias", "heads_bias", (k, 3)) for k, x in enumerate("qkv")),
        Rule(f"{ours}.attention.wo", f"{theirs}.attn.c_proj.weight", "conv_out"),
        Rule(f"{ours}.attention.bo", f"{theirs}.attn.c_proj.bias"),
        *norm_rules(f"{ours}.norm_mlp", f"{theirs}.ln_2"),
        Rule(f"{ours}.mlp.w_in", f"{theirs}.mlp.c_fc.weight"),
        Rule(f"{ours}.mlp.b_in", f"{theirs}.mlp.c_fc.bias"),
        Rule(f"{ours}.mlp.w_out", f"{theirs}.mlp.c_proj.weight"),
        Rule(f"{ours}.mlp.b_out", f"{theirs}.mlp.c_proj.bias"),
        *norm_rules("decoder.norm", "transformer.ln_f"),
        *([] if c.tied else [Rule("embedding.output", "lm_head.weight")]),
    ]


FAMILY = Family(
    "gpt2", "GPT2LMHeadModel", {"positions": "learned", "norm": "layernorm", "bias": True},
    {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}, FIELDS, rules,
    defaults={"n_inner": 0, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "activation_function": "gelu_new"},
    activation_field="activation_function",
    activations={"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"},
    copies={"lm_head.weight": "transformer.wte.weight"}, ignored=(".attn.bias", ".attn.masked_bias"), prefix="transformer.",
    bottlenecks={"decoder": bottleneck_places("transformer.h.{i}")},
)  # fmt: skip
