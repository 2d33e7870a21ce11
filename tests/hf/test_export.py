"""The written folder: whole or not at all, refusals by name, and shapes as the other side wants them (no torch needed)."""

import json
import shutil

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from rgjax.errors import UserError
from rgjax.hf import export, families
from rgjax.hf.table import Rule, tensors


def test_the_family_follows_from_the_configuration():
    names = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "t5": "t5", "t5_tied_relu": "t5"}
    assert {name: families.choose(tiny.config(name), "auto").name for name in names} == names
    assert families.choose(tiny.config("gpt2", head_dim=5), "auto").name == "gpt2"
    assert families.choose(tiny.config("llama"), "mistral").model_class == "MistralForCausalLM"


@pytest.mark.parametrize(
    "config, family, words",
    [
        (tiny.config("llama"), "t5", "--family=t5 .*--architecture=causal"),
        (tiny.config("t5"), "llama", "--family=llama .*--architecture=seq2seq"),
        (tiny.config("qwen3"), "llama", "--qk_norm=True"),
        (tiny.config("llama"), "qwen3", "--qk_norm=False"),
        (tiny.config("qwen2"), "llama", "--qkv_bias=True"),
        (tiny.config("gpt2"), "gpt2", "not as wide"),
        (tiny.config("llama", bias=True), "llama", "--bias=True"),
        (tiny.config("t5", activation="swiglu"), "t5", "--activation=swiglu"),
        (tiny.config("t5", kv_heads=2), "t5", "grouped key heads"),
        (tiny.config("seq2seq_rotary"), "auto", "No Hugging Face architecture"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(config, family, words):
    with pytest.raises(UserError, match=words):
        families.choose(config, family)


def test_matrices_are_laid_out_as_torch_has_them():
    x = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    assert (Rule("", "", "linear").export(x[0]) == x[0].T).all()
    heads_in = Rule("", "", "heads_in").export(x)  # [D, H, A] -> [H * A, D]
    assert heads_in.shape == (12, 2) and heads_in[1 * 4 + 3, 1] == x[1, 1, 3]
    heads_out = Rule("", "", "heads_out").export(x)  # [H, A, D] -> [D, H * A]
    assert heads_out.shape == (4, 6) and heads_out[3, 1 * 3 + 2] == x[1, 2, 3]
    assert (Rule("", "", "heads_bias").export(x[0]) == x[0].reshape(-1)).all()


def test_a_parameter_without_a_place_or_missing_is_refused():
    rules = [Rule("a.b", "x")]
    with pytest.raises(UserError, match="The parameter a.c has no place"):
        list(tensors({"a": {"b": np.ones(1), "c": np.ones(1)}}, rules))
    with pytest.raises(UserError, match="lacks the parameter a.b"):
        list(tensors({"a": {}}, rules))


def test_shards_hold_every_tensor_once(exported, tokenizer, tmp_path):
    factory, params, whole = exported("llama")
    folder = tmp_path / "shards"
    export.write(folder, params, factory.config, tokenizer, shard_bytes=20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    expected = load_file(whole / "model.safetensors")
    assert set(index["weight_map"]) == set(expected) and len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in expected.values())
    for file in set(index["weight_map"].values()):
        shard = load_file(folder / file)
        assert {name for name, where in index["weight_map"].items() if where == file} == set(shard)
        for name, array in shard.items():
            np.testing.assert_array_equal(array, expected[name])


def test_an_existing_folder_is_kept_unless_told_otherwise(exported, tokenizer, tmp_path):
    factory, params, written = exported("llama")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "precious").write_text("x")
    with pytest.raises(UserError, match="--overwrite"):
        export.write(folder, params, factory.config, tokenizer)
    assert (folder / "precious").exists()
    with pytest.raises(UserError):
        export.write(tmp_path / "half", {"embedding": params["embedding"]}, factory.config, tokenizer)
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    with pytest.raises(UserError, match="not a model that rgjax exported"):
        export.write(folder, params, factory.config, tokenizer, overwrite=True)
    assert (folder / "precious").exists()
    (folder / "generation_config.json").write_text("{}")
    save_file({"x": np.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})  # a model, but someone else's
    with pytest.raises(UserError, match="not a model that rgjax exported"):
        export.write(folder, params, factory.config, tokenizer, overwrite=True)
    (folder / "model.safetensors").unlink()
    shutil.copyfile(written / "model.safetensors", folder / "model.safetensors")
    export.write(folder, params, factory.config, tokenizer, overwrite=True)
    assert not (folder / "precious").exists() and (folder / "model.safetensors").exists()


def test_bfloat16_is_written_and_declared(tokenizer, tmp_path):
    import ml_dtypes

    factory = tiny.factory("llama", tokenizer.vocab_size)
    export.write(tmp_path / "half", tiny.params(factory), factory.config, tokenizer, dtype="bfloat16")
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    arrays = load_file(tmp_path / "half" / "model.safetensors")
    assert {a.dtype for a in arrays.values()} == {np.dtype(ml_dtypes.bfloat16)}


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "bart", "t5_geglu"])
def test_the_tokenizer_comes_back(exported, tokenizer, name):
    transformers = pytest.importorskip("transformers")
    factory, _, folder = exported(name)
    kind = families.choose(factory.config, "mistral" if name == "mistral" else "auto").tokenizer_class
    theirs = getattr(transformers, kind).from_pretrained(folder)
    texts = ("in 2024 for 1999, 2024", 'You liked "<h0>", so <item> is for you.', "灯很亮, naïve  two spaces", "<s><|item|>Lamp; price: 12<|reason|>")
    for text in texts:
        ids = tokenizer.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == tokenizer.backend.decode(
            ids, skip_special_tokens=False
        )
    ours = (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id, tokenizer.vocab_size)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == ours


@pytest.mark.parametrize("name", list(tiny.EXPORTED))
def test_the_configurations_come_back(exported, tokenizer, name):
    transformers = pytest.importorskip("transformers")
    factory, _, folder = exported(name)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id) == (
        tokenizer.vocab_size,
        tokenizer.pad_id,
        tokenizer.eos_id,
    )
    assert config.tie_word_embeddings == factory.config.tied or name.startswith("t5")
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert (generation.max_new_tokens, generation.eos_token_id, generation.do_sample) == (17, tokenizer.eos_id, False)
    if factory.config.architecture == "seq2seq":
        assert generation.decoder_start_token_id == tokenizer.pad_id
    elif factory.config.positions == "rotary":
        raw = json.loads((folder / "config.json").read_text())
        assert raw["rope_theta"] == raw["rope_parameters"]["rope_theta"] == factory.config.rope_theta
    assert (folder / "README.md").read_text() == "# Card\n"
