"""T5ForConditionalGeneration, original and v1.1: relative positions, RMSNorm, unscaled attention, no biases."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf.table import Family, Rule, attention_rules
from rgjax.nn.feedforward import GATED

FIELDS = {
    "d_model": "width",
    "d_kv": "head_dim",
    "d_ff": "mlp_width",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "layers",
    "num_heads": "heads",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_distance",
    "layer_norm_epsilon": "norm_eps",
}
DEFAULTS = {
    "d_kv": 64, "num_decoder_layers": 0, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu",
}  # fmt: skip
DENSE = {"geglu": "gelu_new", "relu": "relu", "gelu_new": "gelu_new"}


def more(c: ModelConfig) -> dict:
    # transformers 4.57 scales the output where the first says tied; 5 has the second for that, and ties where the tensors do.
    return {
        "dropout_rate": c.dropout, "dense_act_fn": DENSE[c.activation], "is_gated_act": c.activation in GATED,
        "is_encoder_decoder": True, "tie_word_embeddings": c.tied, "scale_decoder_outputs": c.tied,
    }  # fmt: skip


def options(body: dict) -> dict:
    """A scaled output is tied. (Transformers 5 always says tied, and omits the head of v1.1 as long as it equals the embedding.)"""
    said = (body.get("scale_decoder_outputs"), body.get("tie_word_embeddings"), True)
    tied = next(value for value in said if value is not None)
    return {"layers": body.get("num_decoder_layers") or body["num_layers"], "tied": tied}


def rules(c: ModelConfig) -> list[Rule]:
    found = [Rule("embedding.tokens", "shared.weight"), *([] if c.tied else [Rule("embedding.output", "lm_head.weight")])]
    for stack in ("encoder", "decoder"):
        ours, theirs = f"{stack}.blocks", f"{stack}.block.{{i}}.layer"
        last = 2 if stack == "decoder" else 1
        found += attention_rules(f"{ours}.attention", f"{theirs}.0.SelfAttention", "q k v o")
        found.append(Rule(f"{ours}.norm_attention.scale", f"{theirs}.0.layer_norm.weight"))
        if stack == "decoder":
            found += attention_rules(f"{ours}.cross", f"{theirs}.1.EncDecAttention", "q k v o")
            found.append(Rule(f"{ours}.norm_cross.scale", f"{theirs}.1.layer_norm.weight"))
        found.append(Rule(f"{ours}.norm_mlp.scale", f"{theirs}.{last}.layer_norm.weight"))
        names = {"w_gate": "wi_0", "w_in": "wi_1", "w_out": "wo"} if c.activation in GATED else {"w_in": "wi", "w_out": "wo"}
        found += [Rule(f"{ours}.mlp.{a}", f"{theirs}.{last}.DenseReluDense.{b}.weight", "linear") for a, b in names.items()]
        found.append(Rule(f"{stack}.relative", f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
        found.append(Rule(f"{stack}.norm.scale", f"{stack}.final_layer_norm.weight"))
    return found


FAMILY = Family(
    "t5", "T5ForConditionalGeneration", {"architecture": "seq2seq", "positions": "relative", "norm": "rmsnorm"}, {}, FIELDS, rules,
    defaults=DEFAULTS, activation_field="feed_forward_proj",
    activations={"gated-gelu": "geglu", "relu": "relu", "gelu_new": "gelu_new"}, more=more, options=options,
    copies=dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"),
    stand_ins={"lm_head.weight": "shared.weight"}, classes=("T5WithLMHeadModel",),
    ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),  # unused, in the first published models,
    bottlenecks={
        "encoder": {"attention": "encoder.block.{i}.layer.0", "mlp": "encoder.block.{i}.layer.1"},
        "decoder": {"attention": "decoder.block.{i}.layer.0", "mlp": "decoder.block.{i}.layer.2"},
    },
)  # fmt: skip
