"""Folders that can't be used: one sentence that names the tensor, key or file, and how to mend it."""

import json
import shutil

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from rgjax.config import InputConfig, ModelConfig
from rgjax.data.tokenizer import train_bpe
from rgjax.errors import UserError
from rgjax.hf.load import Pretrained
from rgjax.models.build import ModelFactory
from rgjax.tasks.reason import ReasonTask


@pytest.fixture
def folder(exported, tmp_path):
    """folder(name) -> a copy of an exported folder, to be spoilt."""

    def copy(name="llama"):
        shutil.copytree(exported(name)[2], tmp_path / name)
        return tmp_path / name

    return copy


def changed(path, **fields):
    config = json.loads((path / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "gone"}))


def rewritten(path, change):
    arrays = load_file(path / "model.safetensors")
    change(arrays)
    save_file(arrays, path / "model.safetensors")


def refused(path, tokenizer, *words):
    """The sentence with which `path` is refused; it holds every one of `words` and the folder's name."""
    with pytest.raises(UserError) as caught:
        source = Pretrained.open(str(path))
        config = source.configure(ModelConfig(), set(), tokenizer)
        source.check(ModelFactory(config, config.embeddings))
    text = str(caught.value)
    assert all(word in text for word in (*words, str(path), ";")), text
    assert "\n" not in text and text.endswith(".") and ". " not in text, text


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_is_never_opened(folder, tokenizer, file):
    path = folder()
    (path / "model.safetensors").rename(path / file)
    refused(path, tokenizer, file, "pickle", "safetensors")


def test_files_that_are_missing_or_cut(folder, tokenizer, tmp_path):
    refused(tmp_path / "nowhere", tokenizer, "no local folder")
    path = folder()
    whole = (path / "model.safetensors").read_bytes()
    for cut in (whole[:-4], whole[:100], b"", whole[:4] + b"\xff\xff\xff\xff" + whole[8:]):
        (path / "model.safetensors").write_bytes(cut)
        refused(path, tokenizer, "model.safetensors", "fetch it again")
    (path / "model.safetensors").unlink()
    refused(path, tokenizer, "model.safetensors", "give a folder with weights")
    (path / "config.json").write_text("{")
    refused(path, tokenizer, "config.json", "damaged")
    (path / "config.json").write_text('{"a": ' + "[" * 200_000)
    refused(path, tokenizer, "config.json", "damaged")
    (path / "config.json").unlink()
    refused(path, tokenizer, "config.json", "missing")


@pytest.mark.parametrize("place", ["elsewhere.safetensors", "../llama/spare.safetensors"])
def test_an_index_names_files_of_its_own_folder(folder, tokenizer, place):
    path = folder()
    arrays = load_file(path / "model.safetensors")
    (path / "model.safetensors").rename(path / "spare.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(arrays, place)}))
    refused(path, tokenizer, place, "index")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(arrays, 1)}))
    refused(path, tokenizer, "model.safetensors.index.json", "fetch it again")
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*arrays, "more"], "spare.safetensors")}))
    refused(path, tokenizer, "lacks the tensor more", "spare.safetensors")


@pytest.mark.parametrize(
    "name, fields, words",
    [
        ("llama", {"model_type": "gemma"}, ("'gemma'", "llama, qwen2, qwen3")),
        ("llama", {"model_type": "gone"}, ("model_type None",)),
        ("llama", {"auto_map": {"AutoModel": "code.Model"}}, ("auto_map", "code")),
        ("llama", {"quantization_config": {"bits": 4}}, ("quantization_config",)),
        ("llama", {"hidden_act": "gelu"}, ("hidden_act='gelu'", "silu")),
        ("llama", {"attention_bias": True}, ("attention_bias=True",)),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope", "'linear'")),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, ("rope", "'llama3'")),
        ("llama", {"hidden_size": "gone"}, ("config.json lacks hidden_size",)),
        ("llama", {"hidden_size": "wide"}, ("wrong type",)),
        ("llama", {"num_hidden_layers": 2.0}, ("wrong type", "num_hidden_layers=2.0")),
        ("llama", {"tie_word_embeddings": 1}, ("wrong type", "tie_word_embeddings=1")),
        ("llama", {"model_type": ["llama"]}, ("model_type ['llama']",)),
        ("llama", {"vocab_size": 600.0}, ("vocab_size", "whole number")),
        ("llama", {"architectures": "LlamaForCausalLM"}, ("wrong type", "architectures='LlamaForCausalLM'")),
        ("llama", {"architectures": [["LlamaForCausalLM"]]}, ("architectures ['LlamaForCausalLM']",)),
        ("llama", {"rope_scaling": "linear"}, ("rope", "'linear'")),
        ("llama", {"partial_rotary_factor": 0.5}, ("partial_rotary_factor=0.5",)),
        ("qwen3", {"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5}}, ("partial_rotary_factor=0.5",)),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, ("LlamaForSequenceClassification", "LlamaForCausalLM")),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, ("GPT2ForSequenceClassification", "GPT2LMHeadModel")),
        ("bart", {"architectures": ["BartForSequenceClassification"]}, ("BartForSequenceClassification", "BartForConditionalGeneration")),
        ("t5_relu", {"architectures": ["T5EncoderModel"]}, ("T5EncoderModel", "T5ForConditionalGeneration")),
        ("llama", {"num_hidden_layers": 0}, ("layers=0",)),
        ("llama", {"tie_word_embeddings": True}, ("lm_head.weight differs from model.embed_tokens.weight",)),
        ("mistral", {"sliding_window": 64}, ("sliding_window=64", "max_position_embeddings=128")),
        ("mistral", {"sliding_window": "gone", "max_position_embeddings": 8192}, ("sliding_window=4096", "max_position_embeddings=8192")),
        ("qwen2", {"use_sliding_window": True}, ("use_sliding_window=True",)),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, ("sliding_attention",)),
        ("gpt2", {"activation_function": "silu"}, ("activation_function='silu'", "gelu_new")),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, ("scale_attn_by_inverse_layer_idx",)),
        ("bert", {"architectures": ["BertForSequenceClassification"]}, ("BertForSequenceClassification", "BertForMaskedLM")),
        ("bert", {"type_vocab_size": 3}, ("token_type_embeddings.weight", "[3, 20]")),
        ("t5_relu", {"feed_forward_proj": "gated-silu"}, ("feed_forward_proj='gated-silu'", "gated-gelu")),
        ("t5_geglu", {"scale_decoder_outputs": True}, ("lm_head.weight differs from shared.weight",)),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_named(folder, tokenizer, name, fields, words):
    path = folder(name)
    changed(path, **fields)
    refused(path, tokenizer, *words)


def test_tensors_that_do_not_fit(folder, tokenizer):
    path, down = folder(), "model.layers.1.mlp.down_proj.weight"
    rewritten(path, lambda a: a.update({down: np.ascontiguousarray(a[down].T)}))
    refused(path, tokenizer, down, "[28, 20]", "[20, 28]")
    rewritten(path, lambda a: a.pop(down))
    refused(path, tokenizer, f"lacks the tensor {down}")
    rewritten(path, lambda a: a.update({down: np.ones((20, 28), np.float32), "model.layers.2.extra": np.ones(3, np.float32)}))
    refused(path, tokenizer, "model.layers.2.extra", "llama")
    rewritten(path, lambda a: (a.pop("model.layers.2.extra"), a.update({down: np.ones((20, 28), np.int32)})))
    refused(path, tokenizer, down, "I32")
    path = folder("gpt2")
    rewritten(path, lambda a: a.update({"lm_head.weight": np.ones((tokenizer.vocab_size, 20), np.int64)}))
    refused(path, tokenizer, "lm_head.weight", "I64")
    shutil.rmtree(path)
    path = folder("gpt2_untied")
    rewritten(path, lambda a: a.pop("transformer.wte.weight"))
    refused(path, tokenizer, "lacks the tensor transformer.wte.weight")  # the untied lm_head.weight is no copy of it
    path = folder("gpt2")
    rewritten(path, lambda a: a.update({"transformer.wte.weight": a["transformer.wte.weight"][:-1]}))
    refused(path, tokenizer, "transformer.wte.weight", f"[{tokenizer.vocab_size}, 20]")


def test_another_vocabulary_is_refused_with_both_sizes(folder, tokenizer):
    path = folder()
    other = train_bpe(["other words altogether"] * 3, 400, 2, {})
    refused(path, other, f"{other.vocab_size} tokens", f"{tokenizer.vocab_size} tokens", f"--tokenizer={path}")
    (path / "tokenizer.json").unlink()
    refused(path, tokenizer, "tokenizer.json")


def test_an_encoder_alone_trains_no_reasons(tokenizer):
    with pytest.raises(UserError, match="--architecture=encoder writes no text"):
        ReasonTask(tokenizer, InputConfig(), tiny.config("bert"))


def test_a_flag_that_contradicts_the_folder_is_refused(folder, tokenizer):
    path = folder("qwen3")
    source = Pretrained.open(str(path))
    given = ModelConfig(width=32, dropout=0.5, qk_norm=True, head_dim=6)
    with pytest.raises(UserError, match=f"--width=32 contradicts {path}/config.json, which says 20; leave the flag out."):
        source.configure(given, {"width", "dropout"}, tokenizer)
    config = source.configure(given, {"dropout", "qk_norm", "head_dim"}, tokenizer)
    assert (config.width, config.dropout, config.qk_norm) == (20, 0.5, True)
    assert config.embeddings == tokenizer.vocab_size == tiny.factory("qwen3", tokenizer.vocab_size).vocab_size
