"""Makes the golden folders: tiny models by torch and transformers, with logits. Run by hand: python tests/hf/make_golden.py

Every parameter is drawn anew, norms and biases too, so that no zero or one hides a tensor put in another's place. Widths differ
from each other wherever the architecture lets them.
"""

import pathlib
import zlib

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

GOLDEN = pathlib.Path(__file__).parent / "golden"
VOCAB, LENGTH, TARGETS = 47, 12, 9
ROTARY = {"hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 40}
T5 = {"d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
BART = {"d_model": 20, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BERT = {"hidden_size": 20, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 40}
GPT2 = {"n_embd": 20, "n_inner": 28, "n_layer": 2, "n_head": 4, "n_positions": 40, "bos_token_id": 1, "eos_token_id": 2}
# name -> (class, fields of its configuration)
MODELS = {
    "llama": ("Llama", ROTARY | {"head_dim": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 500.0}),
    "qwen2": ("Qwen2", ROTARY | {"head_dim": 6, "num_key_value_heads": 1, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen3": ("Qwen3", ROTARY | {"head_dim": 6, "num_key_value_heads": 2, "tie_word_embeddings": False}),
    "mistral": ("Mistral", ROTARY | {"head_dim": 6, "num_key_value_heads": 2, "sliding_window": 40}),
    "gpt2": ("GPT2", GPT2),
    "gpt2_untied": ("GPT2", GPT2 | {"tie_word_embeddings": False, "activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    "t5": ("T5", T5 | {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 20}),
    "t5_v1_1": ("T5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5_v1_1_tied": ("T5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),  # tied, as transformers 5 makes them
    "bart": ("Bart", BART | {"encoder_ffn_dim": 28, "decoder_ffn_dim": 28, "max_position_embeddings": 40}),
    "bert": ("Bert", BERT),
    "bert_pooled": ("Bert", BERT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
}
HEADS = {"T5": "T5ForConditionalGeneration", "Bart": "BartForConditionalGeneration", "GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM"}


def model_of(name: str, **changes) -> torch.nn.Module:
    """The named model, in evaluation, with random parameters that depend on the name only."""
    kind, fields = MODELS[name]
    config = getattr(transformers, kind + "Config")(vocab_size=VOCAB, dtype="float32", **fields | changes)
    model = getattr(transformers, "BertModel" if name == "bert_pooled" else HEADS.get(kind, kind + "ForCausalLM"))(config).eval()
    if name == "t5_v1_1":
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            norm = parameter.dim() == 1 and parameter_name.endswith("weight")
            parameter.copy_(norm + torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def expected(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Inputs of two rows, the first padded on the left (an encoder's on the right), and the logits (or what BertModel pools).

    An encoder-decoder's targets are not padded.
    """
    rng = np.random.default_rng(7)
    ids, mask = rng.integers(3, VOCAB, (2, LENGTH)), np.ones((2, LENGTH), np.int64)
    mask[0, :5] = 0
    if model.config.model_type == "bert":
        mask = np.ascontiguousarray(mask[:, ::-1])
    given = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = rng.integers(3, VOCAB, (2, TARGETS))
    else:
        given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        out = model(**{name: torch.tensor(value) for name, value in given.items()})
    return given | {"logits": out.get("logits", out.get("pooler_output")).numpy()}


def make(name: str) -> None:
    """Writes config.json, model.safetensors and expected.safetensors."""
    model, folder = model_of(name), GOLDEN / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in expected(model).items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    for each in MODELS:
        make(each)
