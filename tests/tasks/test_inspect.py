"""launch.inspect: numbers beside those counted otherwise, samples beside what batches hold, refusals by name."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
from environment import ROOT
from rich.console import Console
from safetensors.numpy import load_file, save_file

from rgjax.config import InputConfig, InspectConfig
from rgjax.data import pipeline
from rgjax.data.template import Template
from rgjax.errors import UserError
from rgjax.hf import export
from rgjax.hf.sentence import Sentence
from rgjax.report import inspection
from rgjax.tasks.inspect import inspect
from rgjax.tasks.samples import Pieces, samples_of

SMALL = {"length": 192, "target_length": 64}


def looked(path, inputs=None, given=(), **flags):
    return inspect(InspectConfig(path=str(path), **flags), inputs or InputConfig(**SMALL), set(given))


def shown(facts, samples, colours=False):
    console = Console(file=io.StringIO(), force_terminal=colours, width=400, highlight=False)
    inspection.show(facts, samples, console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    made = tiny.factory("llama", tokenizer.vocab_size + 3, max_positions=256, tied=False, embeddings=tokenizer.vocab_size + 3)
    path = tmp_path_factory.mktemp("hf") / "llama"
    export.write(path, tiny.params(made, noise=0.02), made.config, tokenizer, dtype="bfloat16")
    return path


def test_the_numbers_are_those_of_the_files(folder, tokenizer):
    facts, samples = looked(folder)
    arrays = load_file(folder / "model.safetensors")
    size = lambda part: sum(a.size for name, a in arrays.items() if part in name)
    total = size("")
    parts = {"embedding": size("embed_tokens"), "decoder": size("layers") + size("model.norm"), "head": size("lm_head")}
    assert facts["parameters"] == parts | {"total": total, "trainable": total, "frozen": 0} and not samples
    assert facts["memory"]["stored_bytes"] == {"bfloat16": 2 * total} and facts["memory"]["training_bytes"] == 16 * total
    config = json.loads((folder / "config.json").read_text())
    fields = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads", "mlp_width": "intermediate_size"}
    assert {ours: facts["architecture"][ours] for ours in fields} == {ours: config[theirs] for ours, theirs in fields.items()}
    assert facts["tokenizer"] == {"kind": "BPE (byte-level)", "vocabulary": 600, "rows": 603, "unused_rows": 3}
    assert facts["special_tokens"]["roles"] == {"pad": ["<pad>", 0], "eos": ["</s>", 1], "bos": ["<s>", 2]}
    assert facts["slots"] == {"history": 8, "item": 1, "attributes": 24} and not facts["chat_template"]
    assert "<|reason|>" in facts["markers"] and facts["control_codes"]
    text = shown(facts, samples)
    assert f"{total:,}" in text and "</s>  1" in text and json.dumps(facts)


def test_a_chat_template_is_found(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert looked(copy)[0]["chat_template"]


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_samples_are_what_the_batches_hold(dataset, tokenizer, architecture):
    config = InputConfig(batch_size=4, packing=False, **SMALL)
    template = Template(tokenizer, config, architecture)
    samples = samples_of(dataset, template, config, architecture, "val", 3)
    assert [s.index for s in samples] == [0, 6, 12]
    batches = list(pipeline.eval_batches(dataset, "val", template, config, architecture))
    for sample in samples:
        (row,) = [r for r in ("row", "decoder") if r in sample.rows]
        ids = [i for piece in sample.rows[row] for i in piece.ids]
        loss = [piece.loss for piece in sample.rows[row] for _ in piece.ids]
        found = False
        for batch in batches:
            for r in range(4):
                for segment in range(1, batch["segment_ids"][r].max() + 1):
                    here = batch["segment_ids"][r] == segment
                    if batch["tokens"][r][here].tolist() == ids[:-1] and batch["targets"][r][here].tolist() == ids[1:]:
                        found = True
                        assert batch["weights"][r][here].tolist() == loss[1:] and not loss[0]
        assert found
        text = "".join(piece.text for piece in sample.rows[row] if piece.loss)
        assert tokenizer.backend.decode([i for i, on in zip(ids, loss, strict=True) if on], skip_special_tokens=False) == text
        assert sample.target_tokens == sum(loss)


def test_what_carries_loss_is_marked(dataset, tokenizer):
    config = InputConfig(**SMALL)
    samples = samples_of(dataset, Template(tokenizer, config), config, "causal", "train", 1)
    plain = inspection.sample_text(samples[0], marked=True).plain
    row = plain.splitlines()[1]
    assert row.count("[[") == row.count("]]") == 1 and "<|reason|>[[" in row and row.endswith("</s>]]")
    coloured = inspection.sample_text(samples[0], marked=False)
    assert "[[" not in coloured.plain
    styles = {coloured.plain[s.start : s.end]: s.style for s in coloured.spans}
    assert styles["</s>"] == inspection.STYLES["special loss"] and styles["<|reason|>"] == inspection.STYLES["special"]


def test_a_character_of_several_tokens_is_one_piece(tokenizer):
    ids = tokenizer.encode("a 龘 b")
    pieces = Pieces(tokenizer).of(ids, [False] * len(ids))
    assert "".join(p.text for p in pieces) == "a 龘 b" and [i for p in pieces for i in p.ids] == ids
    assert any("龘" in p.text and len(p.ids) > 1 for p in pieces)


def test_a_folder_with_a_dataset_shows_what_training_would_read(folder, dataset_folder):
    facts, samples = looked(folder, InputConfig(dataset=str(dataset_folder), **SMALL), samples=2)
    assert [s["target_tokens"] for s in facts["samples"]] == [s.target_tokens for s in samples] and len(samples) == 2
    text = shown(facts, samples)
    assert text.count("[[") == 2
    with pytest.raises(UserError, match="max_positions=256"):
        looked(folder, InputConfig(dataset=str(dataset_folder)))


def test_an_encoder_of_sentence_transformers(tmp_path, tokenizer):
    made = tiny.factory("bert", tokenizer.vocab_size, encoder_head="pooled")
    export.write(tmp_path / "bert", tiny.params(made), made.config, tokenizer, sentence=Sentence("cls", True, 30))
    facts, _ = looked(tmp_path / "bert")
    assert facts["vectors"] == {"pooling": "cls", "normalize": True, "longest": 30} and "cls" in shown(facts, [])
    modules = tmp_path / "bert" / "modules.json"
    modules.write_text(modules.read_text().replace("models.Normalize", "models.Dense"))
    assert "'Dense'" in looked(tmp_path / "bert")[0]["vectors"]["refused"]


def test_a_dataset(dataset_folder):
    facts, samples = looked(dataset_folder, samples=1, split="test")
    assert facts["kind"] == "dataset" and facts["counts"] == {"train": 132, "val": 20, "test": 8} and len(samples) == 1
    assert "132" in shown(facts, samples)


def test_a_dataset_whose_bytes_changed_is_refused(dataset_folder, dataset, tmp_path):
    copy = shutil.copytree(dataset_folder, tmp_path / "copy")
    shard = copy / dataset.manifest["splits"]["train"][0]["file"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{shard.name} is unreadable"):
        looked(copy)


def test_a_run(unbroken_run, dataset_folder, tmp_path):
    facts, samples = looked(unbroken_run, samples=2)
    assert (facts["kind"], facts["architecture"]["family"], facts["checkpoints"]["latest"]) == ("run", "llama", 12)
    assert facts["parameters"]["total"] == facts["parameters"]["trainable"] and len(samples) == 2
    assert "[[" in shown(facts, samples) and "[[" not in shown(facts, samples, colours=True)
    moved = tmp_path / "run"
    shutil.copytree(unbroken_run, moved)
    config = json.loads((moved / "config.json").read_text())
    config["input"]["dataset"] = str(tmp_path / "gone")
    (moved / "config.json").write_text(json.dumps(config))
    facts, samples = looked(moved)
    assert not samples and "gone  (not there; --dataset" in shown(facts, samples)
    assert looked(moved, InputConfig(dataset=str(dataset_folder)), given=("dataset",))[1]
    with pytest.raises(UserError, match="--length is given"):
        looked(unbroken_run, given=("dataset", "length"))


def adapter(path, config, tensors, file="adapter_model.safetensors"):
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, path / file)
    return path


def test_adapters_of_both_formats(tmp_path):
    at = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {at.format(i, side): np.zeros((4, 20) if side == "A" else (24, 4), np.float32) for i in range(2) for side in "AB"}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": "base"}
    facts = looked(adapter(tmp_path / "peft", config, tensors))[0]["adapter"]
    assert (facts["type"], facts["rank"], facts["alpha"], facts["base"]) == ("LORA", 4, 8, "base")
    assert facts["targets"] == ["q_proj", "v_proj"] and facts["parameters"] == 2 * 4 * 44 and facts["bytes"] == 4 * 2 * 4 * 44
    assert facts["tensors"] == {at.format("*", "A"): [2, [4, 20]], at.format("*", "B"): [2, [24, 4]]}
    name = "transformer.h.{}.output_adapters.adapters.shop.adapter_{}"
    tensors = {name.format(0, "down.0.weight"): np.zeros((3, 20), np.float16), name.format(0, "up.weight"): np.zeros((20, 3), np.float16)}
    config = {"config": {"reduction_factor": 7}, "model_name": "\x1b[31mbase", "name": "shop"}
    facts, _ = looked(adapter(tmp_path / "hub", config, tensors, "pytorch_adapter.safetensors"))
    assert (facts["adapter"]["format"], facts["adapter"]["type"], facts["adapter"]["rank"]) == ("AdapterHub", "bottleneck", 3)
    assert facts["adapter"]["targets"] == ["output_adapters"] and "120" in shown(facts, []) and "\x1b" not in shown(facts, [])


def refused(path, *words):
    with pytest.raises(UserError) as caught:
        looked(path)
    text = str(caught.value)
    assert all(word in text for word in (*words, str(path), ";")), text
    assert "\n" not in text and text.endswith(".") and ". " not in text, text


def test_bad_folders_are_refused_by_name(folder, tmp_path):
    refused(tmp_path / "none", "is no folder")
    refused(tmp_path, "no config.json")

    def spoilt(name, change):
        path = tmp_path / name
        shutil.copytree(folder, path)
        change(path)
        return path

    def fields(**values):
        return lambda path: (path / "config.json").write_text(json.dumps(json.loads((path / "config.json").read_text()) | values))

    def arrays(change):
        def rewrite(path):
            tensors = load_file(path / "model.safetensors")
            change(tensors)
            save_file(tensors, path / "model.safetensors")

        return rewrite

    weights = "model.safetensors"
    refused(spoilt("bin", lambda p: (p / weights).rename(p / "pytorch_model.bin")), "pytorch_model.bin is a pickle")
    refused(spoilt("map", fields(auto_map={"AutoModel": "code.Model"})), "auto_map")
    refused(spoilt("kind", fields(model_type="gemma")), "'gemma'")
    refused(spoilt("cut", lambda p: (p / weights).write_bytes((p / weights).read_bytes()[:-9])), "not a whole safetensors file")
    refused(spoilt("lacks", arrays(lambda a: a.pop("model.norm.weight"))), "lacks the tensor model.norm.weight")
    refused(spoilt("more", arrays(lambda a: a.update({"spare": np.ones(2, np.float32)}))), "has the tensor spare")
    refused(spoilt("shape", arrays(lambda a: a.update({"model.norm.weight": np.ones(7, np.float32)}))), "model.norm.weight", "[7]", "[20]")
    adapter(tmp_path / "adapter", {"peft_type": "LORA"}, {"a": np.ones(1, np.int32)})
    refused(tmp_path / "adapter", "the tensor a of type I32")
    for n, targets in enumerate((5, [5], {"q_proj": 1})):
        adapter(tmp_path / str(n), {"peft_type": "LORA", "target_modules": targets}, {"a": np.ones(1, np.float32)})
        refused(tmp_path / str(n), f"target_modules={targets!r}")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    refused(tmp_path / "adapter", "adapter_model.bin is a pickle")


def test_the_path_stands_alone_and_flags_may_follow(folder):
    command = [sys.executable, "-m", "launch.inspect", str(folder), "--samples=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kind"] == "folder"
    for more, words in (([str(folder), "more"], "Unexpected argument 'more'"), ([], "--path is missing"), (["nowhere"], "nowhere is no folder")):
        done = subprocess.run([*command[:3], *more], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and not done.stdout and words in done.stderr and "Traceback" not in done.stderr
