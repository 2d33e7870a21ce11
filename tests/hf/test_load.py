"""Folders made by torch (tests/hf/golden, written by make_golden.py), read without it: logits, tensors, types, shards and slices."""

import dataclasses
import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from rgjax.config import DecodeConfig, ModelConfig
from rgjax.data.template import Rendered
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode.writer import Writer
from rgjax.hf import export
from rgjax.hf.families import FAMILIES
from rgjax.hf.folder import Folder
from rgjax.hf.load import Pretrained
from rgjax.hf.table import KINDS, Rule, flat, tensors
from rgjax.models.build import ModelFactory
from rgjax.parallel import mesh as mesh_lib

GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = sorted(p.name for p in GOLDEN.iterdir())


def read(folder):
    """(source, factory, parameters) of a folder without a tokenizer."""
    source = Pretrained.open(str(folder))
    config = dataclasses.replace(ModelConfig(), **source.options, embeddings=source.folder.config["vocab_size"])
    factory = ModelFactory(config, config.embeddings)
    return source, factory, source.params(factory, mesh_lib.make("data:1"))


def our_logits(factory, params, given):
    """Logits of a left-padded batch; an encoder-decoder's is its encoder's input."""
    ids, mask = given["input_ids"].astype(np.int32), given["attention_mask"].astype(np.int32)
    batch = {"tokens": ids, "segment_ids": mask, "positions": np.maximum(mask.cumsum(1) - 1, 0)}
    if "decoder_input_ids" in given:
        targets = given["decoder_input_ids"].astype(np.int32)
        # A model with learned positions counts them from the row's beginning, padding included, as transformers does.
        batch = {"encoder_" + name: value for name, value in batch.items()}
        batch["encoder_positions"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
        batch |= {"tokens": targets, "segment_ids": np.ones_like(targets), "positions": np.broadcast_to(np.arange(targets.shape[1]), targets.shape)}
    if factory.config.architecture == "encoder":
        model, hidden = factory.model(params), tiny.hidden(factory, params, batch)
        return np.asarray(model.logits(hidden) if factory.config.encoder_head == "masked" else model.pooled(hidden))
    head, shrink = factory.model(params).head()
    return tiny.hidden(factory, params, batch) * shrink @ np.asarray(head).T


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), (_, b) in zip(flat(one), flat(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_torch(name):
    given = load_file(GOLDEN / name / "expected.safetensors")
    _, factory, params = read(GOLDEN / name)
    ours, shown = our_logits(factory, params, given), given["attention_mask"] > 0
    theirs = given["logits"]
    if theirs.shape[:2] == shown.shape:  # one sequence: what padding scores means nothing
        ours, theirs = ours[shown], theirs[shown]
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_written_again_holds_the_same_tensors(name, tokenizer, tmp_path):
    source, factory, params = read(GOLDEN / name)
    export.write(tmp_path / "again", params, factory.config, tokenizer, family=source.family.name, token_ids=source.folder.token_ids())
    theirs, ours = load_file(GOLDEN / name / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    if name == "t5_v1_1_tied":  # transformers 4.57 would scale the output of a tied head, so ours is written beside
        theirs["lm_head.weight"] = theirs["shared.weight"]
    assert set(ours) == set(theirs)
    for tensor in theirs:
        np.testing.assert_array_equal(ours[tensor], theirs[tensor], err_msg=tensor)
    again, _, other = read(tmp_path / "again")
    assert_equal_trees(params, other)
    assert again.options == source.options
    before, after = (json.loads((f / "config.json").read_text()) for f in (GOLDEN / name, tmp_path / "again"))
    left_out = {"transformers_version", "dropout_rate", "tie_word_embeddings", "sliding_window"}
    for field in set(before) & set(after) - left_out:
        assert before[field] == after[field] or before[field] is None, field


@pytest.mark.parametrize("name", list(tiny.EXPORTED))
def test_what_we_export_comes_back_bit_for_bit(exported, name):
    factory, params, folder = exported(name)
    source, other, found = read(folder)
    assert_equal_trees(params, found)
    shown = {name: getattr(factory.config, name) for name in ("activation", "tied", "norm_eps", "rope_theta", "qkv_bias")}
    assert {name: getattr(other.config, name) for name in shown} == shown
    assert Tokenizer.load(folder).vocab_size == other.config.embeddings


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_half_types_and_shards_become_float32(tmp_path, kind):
    folder = tmp_path / "shards"
    shutil.copytree(GOLDEN / "qwen3", folder)
    arrays = {name: array.astype(kind) for name, array in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    (folder / "expected.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    places = {name: files[i % 2] for i, name in enumerate(sorted(arrays))}
    for file in files:
        save_file({n: a for n, a in arrays.items() if places[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    source, factory, params = read(folder)
    assert {a.dtype for a in jax.tree.leaves(params)} == {np.dtype("float32")}
    for name, array in tensors(params, source.family.rules(factory.config)):
        np.testing.assert_array_equal(array, arrays[name].astype(np.float32), err_msg=name)


def test_both_forms_of_the_rotary_base_are_read(tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(GOLDEN / "llama", folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": None}))
    assert Pretrained.open(str(folder)).options == Pretrained.open(str(GOLDEN / "llama")).options
    assert Pretrained.open(str(folder)).options["rope_theta"] == 500.0


def renamed(tmp_path, name, change):
    """A copy of a golden folder with `change` made to its dict of tensors."""
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name, folder)
    arrays = load_file(folder / "model.safetensors")
    save_file(change(arrays) or arrays, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "name, prefix", [("llama", "model."), ("qwen2", "model."), ("mistral", "model."), ("gpt2", "transformer."), ("bart", "model."), ("bert", "bert.")]
)  # fmt: skip
def test_names_without_the_prefix_of_the_base_model_are_read(tmp_path, name, prefix):
    folder = renamed(tmp_path, name, lambda a: {n.removeprefix(prefix): array for n, array in a.items()})
    assert_equal_trees(read(folder)[2], read(GOLDEN / name)[2])


def test_a_base_model_with_the_names_of_a_whole_one_is_read(tmp_path):
    folder = renamed(tmp_path, "bert_pooled", lambda a: {"bert." + n: array for n, array in a.items()})
    assert_equal_trees(read(folder)[2], read(GOLDEN / "bert_pooled")[2])


@pytest.mark.parametrize(
    "name, buffers",
    [
        ("gpt2", {"transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 40, 40), bool)), "transformer.h.1.attn.bias": np.ones(4, np.uint8)}),
        ("gpt2", {"h.0.attn.bias": np.tril(np.ones((1, 1, 40, 40), np.float32)), "h.0.attn.masked_bias": np.float32(-1e4)}),
        ("bert", {"bert.embeddings.position_ids": np.arange(40)[None]}),
        ("bert_pooled", {"embeddings.position_ids": np.arange(40)[None]}),
    ],
)
def test_constant_buffers_of_any_type_are_ignored(tmp_path, name, buffers):
    folder = renamed(tmp_path, name, lambda a: a.update({n: np.asarray(b) for n, b in buffers.items()}))
    assert_equal_trees(read(folder)[2], read(GOLDEN / name)[2])


@pytest.mark.parametrize(
    "name, ours, theirs",
    [
        ("gpt2", "transformer.wte.weight", "lm_head.weight"),
        ("qwen2", "model.embed_tokens.weight", "lm_head.weight"),
        ("bart", "model.shared.weight", "model.decoder.embed_tokens.weight"),
        ("bart", "model.shared.weight", "encoder.embed_tokens.weight"),
        ("t5", "shared.weight", "decoder.embed_tokens.weight"),
        ("t5_v1_1", "shared.weight", "encoder.embed_tokens.weight"),
        ("t5_v1_1_tied", "shared.weight", "encoder.embed_tokens.weight"),
        ("bert", "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
        ("bert", "cls.predictions.bias", "cls.predictions.decoder.bias"),
    ],
)
def test_a_tied_tensor_is_read_under_any_of_its_names(tmp_path, name, ours, theirs):
    folder = renamed(tmp_path, name, lambda a: a.update({theirs: a.pop(ours)}))
    assert_equal_trees(read(folder)[2], read(GOLDEN / name)[2])


@pytest.mark.parametrize(
    "said, forced, start", [({}, 2, 2), ({"decoder_start_token_id": 5, "forced_bos_token_id": 0}, 2, 5), ({"forced_eos_token_id": None}, None, 2)]
)
def test_the_ids_a_bart_generates_with_are_kept(tmp_path, tokenizer, said, forced, start):
    folder = renamed(tmp_path, "bart", lambda a: a)
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("decoder_start_token_id", "forced_eos_token_id")} | said
    (folder / "config.json").write_text(json.dumps(config))
    source, factory, params = read(folder)
    export.write(tmp_path / "again", params, factory.config, tokenizer, family="bart", token_ids=source.folder.token_ids())
    for file in ("config.json", "generation_config.json"):
        again = json.loads((tmp_path / "again" / file).read_text())
        assert (again["decoder_start_token_id"], again.get("forced_eos_token_id")) == (start, forced)
        assert again.get("forced_bos_token_id") == said.get("forced_bos_token_id")


@pytest.mark.parametrize(
    "scale, tie, tied", [(None, True, True), (None, False, False), (False, True, False), (None, None, True), ("gone", False, False)]
)
def test_whether_a_t5_is_tied(scale, tie, tied):
    body = json.loads((GOLDEN / "t5" / "config.json").read_text()) | {"scale_decoder_outputs": scale, "tie_word_embeddings": tie}
    assert FAMILIES["t5"].read({k: v for k, v in body.items() if v != "gone"})["tied"] == tied


@pytest.mark.parametrize("name, base", [("llama", "LlamaModel"), ("gpt2", "GPT2Model"), ("t5", "T5Model"), ("bart", "BartModel")])
def test_the_base_class_or_none_may_be_named(name, base):
    body = json.loads((GOLDEN / name / "config.json").read_text())
    options = FAMILIES[name].read(body | {"architectures": [base]})
    assert options == FAMILIES[name].read(body | {"architectures": None})


@pytest.mark.parametrize("name", ["bert", "bert_pooled"])
def test_norms_of_old_bert_files_are_read(tmp_path, name):
    old = lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    folder = renamed(tmp_path, name, lambda a: {old(n): array for n, array in a.items()})
    assert_equal_trees(read(folder)[2], read(GOLDEN / name)[2])


@pytest.mark.parametrize("kind", ["as_is", *KINDS])
def test_a_slice_is_that_of_the_whole(kind):
    """What a device of a mesh asks for: heads and rows may be cut, the width of a head never is."""
    shape = {"linear": (6, 4), "heads_in": (6, 4, 5), "conv_in": (6, 4, 5), "heads_bias": (4, 5)}.get(kind, (4, 5, 6))
    rng, whole = np.random.default_rng(0), slice(None)
    parts = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
    rules = [Rule("", "", kind, (k, 3)) for k in range(3)]
    tensor = np.concatenate([rule.export(part) for rule, part in zip(rules, parts, strict=True)], axis=-1)
    assert tensor.shape == rules[0].shape(shape)
    for cut in range(len(shape)):
        if kind != "as_is" and shape[cut] == 5:
            continue
        index = tuple(slice(1, 3) if axis == cut else whole for axis in range(len(shape)))
        for rule, part in zip(rules, parts, strict=True):
            np.testing.assert_array_equal(rule.read(tensor, shape, index), part[index])
            np.testing.assert_array_equal(rule.read(tensor, shape, (whole,) * len(shape)), part)


def with_tokens(tokenizer, folder, extra):
    """The tokenizer with further tokens, saved and loaded."""
    tokenizer.save(folder)
    larger = Tokenizer.load(folder)
    larger.backend.add_tokens(extra)
    larger.save(folder)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_tokens_that_were_added_get_rows_near_the_mean(exported, tokenizer, tmp_path, name):
    _, params, folder = exported(name)
    larger = with_tokens(tokenizer, tmp_path, ["<|added|>", "<|too|>"])
    source = Pretrained.open(str(folder))
    config = source.configure(ModelConfig(), set(), larger)
    assert config.embeddings == tokenizer.vocab_size + 2
    factory = ModelFactory(config, config.embeddings)
    found = source.params(factory, mesh_lib.make("data:1"))
    old, new = params["embedding"]["tokens"], np.asarray(found["embedding"]["tokens"])
    np.testing.assert_array_equal(new[:-2], old)
    assert not np.array_equal(new[-1], new[-2])
    assert np.abs(new[-2:] - old.mean(0)).max() < 0.5 * old.std(0).max()
    half = source._reader(Rule("embedding.tokens", source.family.rules(config)[0].theirs), new.shape, 0)
    np.testing.assert_array_equal(half((slice(598, 602), slice(3, 9))), new[598:602, 3:9])


def test_rows_beyond_the_vocabulary_are_kept_and_never_written(tokenizer, tmp_path):
    """Tables are often padded to a round number; the padding may well score highest."""
    config = tiny.config("llama", embeddings=tokenizer.vocab_size + 40)
    factory = ModelFactory(config, config.embeddings)
    params = tiny.params(factory)
    export.write(tmp_path / "padded", params, config, tokenizer)
    source = Pretrained.open(str(tmp_path / "padded"))
    read_back = source.configure(ModelConfig(), set(), tokenizer)
    assert read_back.embeddings == config.embeddings == source.folder.config["vocab_size"]
    head = np.asarray(params["embedding"]["output"]).copy()
    head[tokenizer.vocab_size :] *= 50
    loud = params | {"embedding": params["embedding"] | {"output": head}}
    writer = Writer(factory, loud, tokenizer, DecodeConfig(max_new_tokens=8, decode_batch=4))
    prompts = [Rendered([5, 6, 7 + i], [], {}, False) for i in range(4)]
    assert all(t < tokenizer.vocab_size for (h,) in writer.write(prompts) for t in h.ids)


def test_nothing_is_read_that_is_not_asked_for(exported):
    """Tensors are views into the mapped file."""
    folder = Folder.open(exported("llama")[2])
    for tensor in folder.tensors.values():
        base = tensor
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap) and not tensor.flags.writeable
