"""BertForMaskedLM and BertModel: an encoder with layer norms after each sum, and vectors for kinds of token."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.hf.table import Family, Rule, attention_rules, linear_rules, norm_rules

HEADS = {"BertForMaskedLM": "masked", "BertForPreTraining": "masked", "BertModel": "pooled"}
FIELDS = {
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "max_position_embeddings": "max_positions",
    "layer_norm_eps": "norm_eps",
    "type_vocab_size": "token_types",
}
SHAPE = {
    "architecture": "encoder", "positions": "learned", "norm": "layernorm", "bias": True, "post_norm": True, "embedding_norm": True,
    "tied": True,
}  # fmt: skip


def more(c: ModelConfig) -> dict:
    named = next(name for name, head in HEADS.items() if head == c.encoder_head)
    return {"architectures": [named], "hidden_dropout_prob": c.dropout, "attention_probs_dropout_prob": c.dropout}


def options(body: dict) -> dict:
    """Which head."""
    return {"encoder_head": HEADS[(body.get("architectures") or ["BertModel"])[0]]}


def rules(c: ModelConfig) -> list[Rule]:
    base = "bert." if c.encoder_head == "masked" else ""
    ours, theirs, table = "encoder.blocks", f"{base}encoder.layer.{{i}}", f"{base}embeddings"
    head = "cls.predictions.transform.dense" if c.encoder_head == "masked" else "pooler.dense"
    found = [
        Rule("embedding.tokens", f"{table}.word_embeddings.weight"),
        Rule("embedding.places", f"{table}.position_embeddings.weight"),
        Rule("embedding.types", f"{table}.token_type_embeddings.weight"),
        *norm_rules("embedding.norm", f"{table}.LayerNorm"),
        *attention_rules(f"{ours}.attention", f"{theirs}.attention", "self.query self.key self.value output.dense", bias="qkvo"),
        *norm_rules(f"{ours}.norm_attention", f"{theirs}.attention.output.LayerNorm"),
        *linear_rules(f"{ours}.mlp", "in", f"{theirs}.intermediate.dense"),
        *linear_rules(f"{ours}.mlp", "out", f"{theirs}.output.dense"),
        *norm_rules(f"{ours}.norm_mlp", f"{theirs}.output.LayerNorm"),
        Rule("w_head", f"{head}.weight", "linear"),
        Rule("b_head", f"{head}.bias"),
    ]
    if c.encoder_head == "masked":
        found += [*norm_rules("norm", "cls.predictions.transform.LayerNorm"), Rule("b_vocab", "cls.predictions.bias")]
    return found


FAMILY = Family(
    "bert", "BertForMaskedLM", SHAPE, {"is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True}, FIELDS, rules,
    defaults={"layer_norm_eps": 1e-12, "type_vocab_size": 2, "hidden_act": "gelu"}, activation_field="hidden_act",
    activations={"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu"}, more=more, options=options,
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored=("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias", "cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    prefix="bert.", classes=("BertForPreTraining",), endings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)  # fmt: skip
