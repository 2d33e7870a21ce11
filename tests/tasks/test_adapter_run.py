"""Adapters through the launchers: trained, killed and continued, written with, exported alone and merged."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from launched import finish, launch, refused, result
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import load_file

from rgjax import trees
from rgjax.data.dataset import Dataset
from rgjax.hf import export
from rgjax.tasks.run import Run

MERGED = ("lora", "adalora", "ia3")


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """A Hugging Face folder of the shape that `start_training` asks for, with the dataset's vocabulary."""
    folder = tmp_path_factory.mktemp("base") / "hf"
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    export.write(folder, tiny.params(made, noise=0.02), made.config, tokenizer)
    return folder


@pytest.fixture(scope="module")
def trained(base, start_training, tmp_path_factory):
    """trained(adapter, **flags) -> workdir of eight steps; each run once."""
    made = {}

    def get(adapter, **flags):
        key = (adapter, *sorted(flags.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("adapters") / adapter
            finish(start_training(made[key], init_from=base, adapter=adapter, steps=8, learning_rate=0.02, rank=2, virtual_tokens=4, **flags))
        return made[key]

    return get


@pytest.mark.parametrize("adapter", ["lora", "adalora", "prefix", "prompt", "ia3", "bottleneck"])
def test_only_the_adapter_is_trained_and_kept(trained, adapter):
    workdir = trained(adapter)
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    tree = ocp.checkpointables_metadata(workdir / "checkpoints" / str(step)).metadata["state"]
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path({"p": tree["params"], "o": tree["opt_state"]})}
    arrays = [n for n in names if "['decoder']" in n or "['embedding']" in n]
    assert arrays and all("['adapter']" in n for n in arrays)
    assert np.isfinite(list(tiny.logged_losses(workdir).values())).all()
    run = Run.open(workdir)
    own = {name: value for name, value in run.params.items() if name != "adapter"}
    fresh = run.task.factory.fresh(jax.random.fold_in(jax.random.key(0), 0), own)
    for path, before in trees.flat(fresh["adapter"]):
        assert not np.array_equal(before, trees.at(run.params["adapter"], path)), path


def test_a_killed_run_continues_with_the_same_losses(trained, base, start_training, tmp_path):
    flags = {"init_from": base, "adapter": "lora", "learning_rate": 0.02, "rank": 2, "virtual_tokens": 4, "adapter_dropout": 0.1}
    finish(start_training(tmp_path / "run", steps=4, schedule="constant", **flags))
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    finish(start_training(tmp_path / "run", steps=8, schedule="constant", devices=4, mesh="fsdp:2,tensor:2", **flags | {"init_from": moved}))
    finish(start_training(tmp_path / "whole", steps=8, schedule="constant", **flags))
    one, other = tiny.logged_losses(tmp_path / "run"), tiny.logged_losses(tmp_path / "whole")
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "ia3", "prefix", "prompt", "bottleneck"])
def test_an_adapter_leaves_and_comes_back(trained, base, dataset, tmp_path, adapter):
    """What is written with the run, and with its exported adapter named per line beside another run, is the same."""
    workdir, inputs = trained(adapter), tmp_path / "in.jsonl"
    rows = [{k: v for k, v in example.items() if k != "reason"} for example, _ in zip(dataset.examples("val"), range(3), strict=False)]
    inputs.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    result(launch("generate", workdir=workdir, input=inputs, output=tmp_path / "own.jsonl", max_new_tokens=12))
    alone = result(launch("export", workdir=workdir, adapter_only=True, output=tmp_path / "adapter"))
    assert 0 < alone["parameters"] < 5000
    inputs.write_text("".join(json.dumps(row | {"adapter": "a"}, ensure_ascii=False) + "\n" for row in rows))
    other = trained("lora", targets="mlp")
    result(launch("generate", workdir=other, adapters=f"a={tmp_path / 'adapter'}", input=inputs, output=tmp_path / "named.jsonl", max_new_tokens=12))
    own, named = ((tmp_path / f"{name}.jsonl").read_text() for name in ("own", "named"))
    assert own == named
    if adapter in MERGED:
        merged = result(launch("export", workdir=workdir, output=tmp_path / "merged"))
        assert merged["parameters"] > alone["parameters"]
        result(launch("export", init_from=base, adapter=tmp_path / "adapter", output=tmp_path / "again"))
        one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "again"))
        for name in one:
            np.testing.assert_allclose(one[name], two[name], atol=1e-6)
    else:
        refused(launch("export", workdir=workdir, output=tmp_path / "merged"), adapter, "--adapter_only")


def test_a_run_may_begin_with_another(trained, start_training, tmp_path):
    workdir = trained("lora")
    flags = {"init_from": workdir, "learning_rate": 0, "steps": 1}
    finish(start_training(tmp_path / "next", **flags))
    result(launch("export", workdir=workdir, output=tmp_path / "one"))
    result(launch("export", workdir=tmp_path / "next", output=tmp_path / "two"))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6)


def test_adapter_values_may_be_begun_with(trained, base, start_training, dataset_folder, tmp_path):
    workdir = trained("lora")
    result(launch("export", workdir=workdir, adapter_only=True, output=tmp_path / "adapter"))
    flags = {"init_from": base, "adapter": "lora", "rank": 2, "adapter_from": tmp_path / "adapter", "learning_rate": 0, "steps": 1}
    finish(start_training(tmp_path / "next", **flags))
    result(launch("export", workdir=tmp_path / "next", adapter_only=True, output=tmp_path / "two"))
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "two"))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    new = {**{"adapter_from": tmp_path / "adapter", "dataset": dataset_folder, "length": 192, "target_length": 64}, "workdir": tmp_path / "more"}
    refused(launch("train", **new, init_from=base, adapter="lora", rank=2, alpha=64), "multiplies its term by 8 and the flags by 32", "--alpha=16")
    shutil.rmtree(tmp_path / "adapter")  # its values are in the checkpoint
    assert finish(start_training(tmp_path / "next", **flags | {"steps": 2}))["step"] == 2


def test_freezing_and_two_stages(base, start_training, tmp_path):
    flags = {"init_from": base, "steps": 2, "learning_rate": 0.01, "warmup_steps": 0}
    finish(start_training(tmp_path / "frozen", freeze=r"embedding|attention\.w", **flags))
    result(launch("export", workdir=tmp_path / "frozen", output=tmp_path / "out"))
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for name in before:
        moved = "self_attn" not in name and "embed" not in name and "lm_head" not in name
        assert moved != np.array_equal(before[name], after[name]), name
    two_stages = {"adapter": "prompt", "unfreeze": r"mlp\.w_out", "virtual_tokens": 4}
    finish(start_training(tmp_path / "first", **flags | two_stages, base_from=2))
    finish(start_training(tmp_path / "both", **flags | two_stages, base_from=1))
    first, both = Run.open(tmp_path / "first").params, Run.open(tmp_path / "both").params
    down = before["model.layers.0.mlp.down_proj.weight"].T
    np.testing.assert_array_equal(trees.at(first, "decoder.blocks.mlp.w_out")[0], down)
    assert not np.array_equal(trees.at(both, "decoder.blocks.mlp.w_out")[0], down)


def test_mistakes_with_adapters(trained, base, dataset_folder, tmp_path):
    new = {"dataset": dataset_folder, "workdir": tmp_path / "run", "length": 192, "target_length": 64, "batch_size": 4}
    refused(launch("train", **new, adapter="lora"), "--adapter=lora", "--init_from")
    refused(launch("train", **new, init_from=base, adapter="lora", targets="nothing"), "--targets=nothing", "matches no matrix")
    refused(launch("train", **new, init_from=base, freeze="nothing"), "--freeze=nothing", "matches no parameter")
    refused(launch("train", **new, init_from=base, adapter="ia3", dora=True), "--dora", "ia3")
    refused(launch("train", **new, init_from=base, adapter="lora", base_from=3), "--base_from=3", "--unfreeze")
    refused(launch("train", **new, init_from=base, adapter="adalora", initial_rank=2), "--initial_rank=2", "--rank=8")
    refused(launch("train", **new, init_from=base, adapter="lora", targets="cross"), "--targets=cross", "of this model")
    refused(launch("train", **new, init_from=base, adapter="adalora", steps=4, budget_start=2, budget_end=2), "--budget_start=2")
    refused(launch("train", **new, init_from=base, adapter="lora", unfreeze="mlp", base_from=5, steps=4), "--base_from=5", "--steps=4")
    refused(launch("train", **new, init_from=trained("prompt")), "'prompt'", "--adapter_from")
    assert not (tmp_path / "run").exists()
    workdir = trained("lora")
    kept = (base / "model.safetensors").read_bytes()
    refused(launch("export", workdir=workdir, output=base, overwrite=True), f"--output={base}", "which is read")
    assert (base / "model.safetensors").read_bytes() == kept
    away = pathlib.Path(str(base) + "-away")
    base.rename(away)
    try:
        out = {"output": tmp_path / "out"}
        refused(launch("export", workdir=workdir, **out), str(base), "gone", "--base")
        result(launch("export", workdir=workdir, base=away, **out))
        result(launch("export", workdir=workdir, base=away, adapter_only=True, output=tmp_path / "alone"))
        other = tmp_path / "other"
        shutil.copytree(away, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
        refused(launch("export", workdir=workdir, base=other, output=tmp_path / "more"), str(other), "is not what")
    finally:
        away.rename(base)


def test_vectors_of_shopper_and_item_become_a_prompt(base, dataset_folder, start_training, tmp_path):
    made = result(launch("embed", dataset=dataset_folder, width=6, output=tmp_path / "items.parquet"))
    assert made["vectors"] > 10 and made["width"] == 6
    flags = {"init_from": base, "adapter": "vectors", "virtual_tokens": 4, "item_vectors": tmp_path / "items.parquet", "learning_rate": 0.02}
    finish(start_training(tmp_path / "run", steps=4, schedule="constant", **flags))
    finish(start_training(tmp_path / "run", steps=8, schedule="constant", **flags))
    finish(start_training(tmp_path / "whole", steps=8, schedule="constant", **flags))
    one, other = tiny.logged_losses(tmp_path / "run"), tiny.logged_losses(tmp_path / "whole")
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-5)
    known = list(Dataset.open(dataset_folder).examples("val"))[:2]
    rows = [{"item": {"title": "A new thing"}}, *({k: v for k, v in example.items() if k != "reason"} for example in known)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    written = {"workdir": tmp_path / "run", "input": tmp_path / "in.jsonl", "max_new_tokens": 8}
    result(launch("generate", **written, output=tmp_path / "greedy.jsonl"))
    result(launch("generate", **written, output=tmp_path / "mbr.jsonl", method="mbr", candidates=2))
    found = result(launch("evaluate", workdir=tmp_path / "run", ablate_vectors=True, resamples=100))
    assert set(found["modes"]) == {"given", "zero", "shuffle", "random"} and found["modes"]["zero"]["worse_by"]["value"] != 0
    assert found == json.loads((tmp_path / "run" / "ablation.json").read_text())
    refused(launch("evaluate", workdir=tmp_path / "run", ablate_vectors=True, weights="int8"), "--weights=int8")
    before = (tmp_path / "run" / "config.json").read_bytes()
    refused(launch("train", workdir=tmp_path / "run", steps=9, item_vectors="", user_vectors=tmp_path / "items.parquet"), "other vectors")
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    finish(start_training(tmp_path / "drawn", steps=2, vectors_as="random", **flags))
    drawn = result(launch("evaluate", workdir=tmp_path / "drawn", ablate_vectors=True, resamples=100))["modes"]
    assert "worse_by" not in drawn["random"] and drawn["given"]["worse_by"]["value"] != 0
    refused(launch("export", workdir=tmp_path / "run", adapter_only=True, output=tmp_path / "out"), "PEFT", "vectors")
    items = tmp_path / "items.parquet"
    new = {"dataset": dataset_folder, "workdir": tmp_path / "new", "length": 192, "target_length": 64, "batch_size": 4}
    refused(launch("train", **{**flags, "adapter": "lora"}, **new), str(items), "--adapter=vectors")
    refused(launch("embed", dataset=dataset_folder, width=7, output=items), "exists")
    result(launch("embed", dataset=dataset_folder, width=5, output=items, overwrite=True))
    refused(launch("train", workdir=tmp_path / "run", steps=9), "other vectors")
    refused(launch("evaluate", workdir=tmp_path / "run", ablate_vectors=True), "other vectors")


@pytest.mark.parity
@pytest.mark.parametrize("adapter", ["lora", "prefix", "prompt"])
def test_the_card_of_an_adapter_shows_how_to_load_it(trained, base, tmp_path, adapter):
    pytest.importorskip("torch"), pytest.importorskip("peft")
    result(launch("export", workdir=trained(adapter), adapter_only=True, output=tmp_path / "alone"))
    (tmp_path / "alone" / base.name).symlink_to(base)
    card = (tmp_path / "alone" / "README.md").read_text()
    assert "library_name: peft" in card and f"the {adapter} adapter alone" in card
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "alone", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    assert "missing adapter keys" not in done.stderr
