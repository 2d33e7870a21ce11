"""--ewc as a user gives it: measured once, kept in the workdir, continued exactly, with adapters and frozen parts, and refused by name."""

import json
import shutil
import signal

import numpy as np
import pytest
import tiny
from environment import kill_at
from launched import finish, launch, refused
from safetensors import safe_open
from safetensors.numpy import load_file

from rgjax.config import InputConfig, PrepareConfig, TrainConfig
from rgjax.data.dataset import Dataset
from rgjax.data.prepare import prepare
from rgjax.hf import export
from rgjax.parallel import mesh as mesh_lib
from rgjax.tasks import ewc
from rgjax.tasks.reason import ReasonTask

STRONG = {"ewc": 50.0, "ewc_examples": 10, "learning_rate": 0.01, "schedule": "constant"}


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    """A Hugging Face folder of the shape that `start_training` asks for, with the dataset's vocabulary."""
    folder = tmp_path_factory.mktemp("base") / "hf"
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    export.write(folder, tiny.params(made, noise=0.02), made.config, tokenizer)
    return folder


@pytest.fixture(scope="module")
def earlier(dataset_folder, tmp_path_factory):
    """The earlier task's dataset."""
    folder, small = tmp_path_factory.mktemp("tasks") / "earlier", {"demo_users": 40, "demo_items": 30, "demo_examples": 60}
    prepare(PrepareConfig(layout="demo", output=str(folder), tokenizer=str(dataset_folder / "tokenizer"), seed=1, **small))
    return folder


def logged(workdir, name):
    return [json.loads(line)[name] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_with_the_same_losses_and_measures_nothing_again(base, earlier, start_training, tmp_path):
    away, flags = tmp_path / "earlier", {"init_from": base, "ewc_data": tmp_path / "earlier", **STRONG}
    shutil.copytree(earlier, away)
    finish(start_training(tmp_path / "whole", steps=8, **flags))
    kill_at(start_training(tmp_path / "run", steps=8, **flags), tmp_path / "run", 2, signal.SIGKILL)  # nothing is saved yet
    shutil.rmtree(away)
    kept = (tmp_path / "run" / "ewc.safetensors").read_bytes()
    one, other = (load_file(tmp_path / name / "ewc.safetensors") for name in ("run", "whole"))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    finish(start_training(tmp_path / "run", steps=4, **flags))
    assert tiny.logged_losses(tmp_path / "run") == {s: v for s, v in tiny.logged_losses(tmp_path / "whole").items() if s <= 4}
    finish(start_training(tmp_path / "run", steps=8, devices=4, mesh="fsdp:2,tensor:2", **flags))
    one, other = tiny.logged_losses(tmp_path / "run"), tiny.logged_losses(tmp_path / "whole")
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)
    assert (tmp_path / "run" / "ewc.safetensors").read_bytes() == kept
    penalties = logged(tmp_path / "whole", "penalty")
    assert penalties[0] == 0 and all(p > 0 for p in penalties[1:])
    refused(launch("train", workdir=tmp_path / "run", mesh="data:1", ewc=1), "--ewc=50")
    (tmp_path / "run" / "ewc.safetensors").write_bytes(kept[:1000])
    refused(launch("train", workdir=tmp_path / "run", mesh="data:1", steps=9), "ewc.safetensors", "restore it")
    with safe_open(tmp_path / "whole" / "ewc.safetensors", framework="numpy") as file:
        assert file.metadata() == {"dataset": Dataset.open(earlier).fingerprint, "examples": "10"}


def test_it_holds_the_parameters_that_count(base, earlier, start_training, tmp_path):
    """The stronger, the nearer they stay in the Fisher metric; a mesh measures the same."""
    flags = STRONG | {"init_from": base, "ewc_data": earlier, "steps": 8, "warmup_steps": 0}
    finish(start_training(tmp_path / "weak", **flags | {"ewc": 1e-6}))
    finish(start_training(tmp_path / "strong", devices=4, mesh="data:2,fsdp:2", **flags | {"ewc": 1000}))
    weak, strong = (logged(tmp_path / name, "penalty")[-1] / scale for name, scale in (("weak", 1e-6), ("strong", 1000)))
    assert strong < 0.5 * weak
    one, other = (load_file(tmp_path / name / "ewc.safetensors") for name in ("weak", "strong"))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4 * np.abs(one[name]).max(), err_msg=name)


@pytest.mark.parametrize(
    "which", [{"adapter": "lora", "rank": 2}, {"adapter": "adalora", "rank": 2, "initial_rank": 3}, {"freeze": "embedding|norm"}]
)
def test_only_what_is_trained_is_held(base, earlier, start_training, tmp_path, which):
    flags = STRONG | {"init_from": base, "ewc_data": earlier, "steps": 3, "ewc_examples": 3}
    finish(start_training(tmp_path / "run", **flags, **which))
    held = load_file(tmp_path / "run" / "ewc.safetensors")
    names = {name.split(".", 1)[1] for name in held}
    assert {name.split(".", 1)[0] for name in held} == {"fisher", "anchor"}
    if "adapter" in which:
        assert all(name.startswith("adapter.") for name in names)
        halves = [name for name in names if name.endswith(".a")]  # drawn at random, and begun with: not zeros
        assert halves and all(np.any(held[f"anchor.{name}"]) for name in halves)
    else:
        assert names and not any("embedding" in name or "norm" in name for name in names)
    assert any(np.any(values) for name, values in held.items() if name.startswith("fisher."))
    begun = logged(tmp_path / "run", "penalty")
    assert (begun[0] > 0) == (which.get("adapter") == "adalora") and begun[-1] > 0


def test_an_example_stands_alone_and_only_its_reason_counts(earlier, tokenizer):
    """Whatever the run itself scores and packs."""
    inputs = InputConfig(length=192, target_length=64, batch_size=4, loss_on="all")
    task, dataset, mesh = ReasonTask(tokenizer, inputs, tiny.config(max_positions=256)), Dataset.open(earlier), mesh_lib.make("data:1")
    rows = list(ewc.examples(task, dataset, TrainConfig(ewc_examples=10_000), mesh))
    source = dataset.source("train")
    assert len(rows) == len(source)
    for i, row in enumerate(rows):
        rendered = task.template.render(source[i])
        segments = np.asarray(row["segment_ids"])
        assert segments.shape == (1, 192) and segments.sum() == len(rendered.prompt_ids) + len(rendered.target_ids) - 1
        assert np.asarray(row["weights"]).sum() == len(rendered.target_ids)
    few = list(ewc.examples(task, dataset, TrainConfig(ewc_examples=5, seed=3), mesh))
    assert len(few) == 5


def test_mistakes_with_ewc(base, earlier, dataset_folder, tmp_path):
    new = {"dataset": dataset_folder, "workdir": tmp_path / "run", "length": 192, "target_length": 64, "batch_size": 4}
    foreign = tmp_path / "foreign"
    prepare(PrepareConfig(layout="demo", output=str(foreign), vocab_size=500, demo_users=40, demo_items=30, demo_examples=60))
    refused(launch("train", **new, ewc=1, ewc_data=earlier), "--ewc=1", "--init_from")
    refused(launch("train", **new, init_from=base, ewc=1), "--ewc=1", "--ewc_data")
    refused(launch("train", **new, init_from=base, ewc_data=earlier), "--ewc_data=", "--ewc is 0")
    refused(launch("train", **new, init_from=base, ewc_examples=9), "--ewc_examples=9", "--ewc is 0")
    refused(launch("train", **new, init_from=base, ewc=-1, ewc_data=earlier), "--ewc=-1.0", "too small")
    refused(launch("train", **new, init_from=base, ewc=1, ewc_data=foreign), f"--ewc_data={foreign}", "another tokenizer", "--tokenizer=")
    assert not (tmp_path / "run").exists()
