"""T5ForConditionalGeneration: relative positions, RMSNorm, unscaled attention, no biases."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf.table import Family, Rule, attention_rules
from rgjax.nn.feedforward import GATED, hidden_width

_ACT = {"geglu": ("gelu_new", "gated-gelu"), "relu": ("relu", "relu"), "gelu_new": ("gelu_new", "gelu_new")}


def refuses(c: ModelConfig) -> str | None:
    if c.architecture != "seq2seq":
        return "it is decoder-only"
    for name, wanted in (("positions", "relative"), ("norm", "rmsnorm"), ("bias", False), ("qk_norm", False)):
        if getattr(c, name) != wanted:
            return f"it has --{name}={getattr(c, name)}, not {wanted}"
    if c.activation not in _ACT:
        return f"it has --activation={c.activation}, not one of {', '.join(_ACT)}"
    return "it has grouped key heads" if (c.kv_heads or c.heads) != c.heads else None


def config(c: ModelConfig, vocab_size: int) -> dict:
    dense, feed_forward = _ACT[c.activation]
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": vocab_size,
        "d_model": c.width,
        "d_kv": c.head_dim or c.width // c.heads,
        "d_ff": hidden_width(c),
        "num_layers": c.encoder_layers or c.layers,
        "num_decoder_layers": c.layers,
        "num_heads": c.heads,
        "relative_attention_num_buckets": c.relative_buckets,
        "relative_attention_max_distance": c.relative_distance,
        "dropout_rate": c.dropout,
        "layer_norm_epsilon": c.norm_eps,
        "feed_forward_proj": feed_forward,
        "dense_act_fn": dense,
        "is_gated_act": c.activation in GATED,
        "is_encoder_decoder": True,
        "tie_word_embeddings": c.tied,
        "scale_decoder_outputs": c.tied,  # transformers 5 derives it from the line above, 4.57 likewise
        "use_cache": True,
    }


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


FAMILY = Family("t5", refuses, config, rules, start_is_pad=True)
