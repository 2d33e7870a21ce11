"""launch.evaluate --earlier: what a run has forgotten, measured against the model it began with."""

import json
import math
import shutil

import pytest
import tiny
from launched import finish, launch, refused, result

from rgjax.config import PrepareConfig
from rgjax.data.dataset import Dataset
from rgjax.data.prepare import prepare
from rgjax.hf import export
from rgjax.tasks.evaluation import forgetting
from rgjax.tasks.run import Run

USUAL = {"max_new_tokens": 12, "resamples": 100, "method": "greedy"}


@pytest.fixture(scope="module")
def tasks(dataset_folder, tmp_path_factory):
    """Folders of two earlier tasks, and of one with a vocabulary of its own."""
    place, small = tmp_path_factory.mktemp("tasks"), {"demo_users": 40, "demo_items": 30, "demo_examples": 60, "val_share": 0.2}
    for seed in (1, 2):
        prepare(PrepareConfig(layout="demo", output=str(place / f"task{seed}"), tokenizer=str(dataset_folder / "tokenizer"), seed=seed, **small))
    prepare(PrepareConfig(output=str(place / "foreign"), layout="demo", vocab_size=500, **small))
    return place / "task1", place / "task2", place / "foreign"


@pytest.fixture(scope="module")
def runs(tasks, start_training, tmp_path_factory):
    """(run of the first task, run of another task that began with it and reads its prompts otherwise)."""
    place = tmp_path_factory.mktemp("runs")
    finish(start_training(place / "old", dataset=tasks[0], steps=3, learning_rate=0.01))
    finish(start_training(place / "new", init_from=place / "old", steps=3, learning_rate=0.01, history_order="overlap"))
    return place / "old", place / "new"


def test_before_and_after_on_two_earlier_tasks(runs, tasks):
    old, new = runs
    done = launch("evaluate", workdir=new, earlier=f"{tasks[0]},{tasks[1]}", **USUAL)
    found = result(done)
    assert "b: before" in done.stdout and "different prompts" in done.stdout and not found["same_prompts"]
    stored = json.loads((new / "forgetting.json").read_text())
    assert stored == {k: v for k, v in found.items() if k != "output"} and not (new / "evaluation.json").exists()
    assert (found["before"]["model"], found["after"]["model"]) == (str(old), str(new))
    for folder in tasks[:2]:
        dataset, scores = Dataset.open(folder), found["earlier"][str(folder)]["scores"]
        assert found["earlier"][str(folder)]["examples"] == dataset.count("val") > 5
        assert {"perplexity", "distinct_1"} <= set(scores) and any(name.startswith("rouge_l") for name in scores)
        for side, run in (("before", Run.open(old)), ("after", Run.open(new))):
            whole = run.perplexity(dataset, "val")  # packed, and each run's own prompt
            assert scores["perplexity"][side] == pytest.approx(whole["perplexity"], rel=1e-4)
        told = scores["perplexity"]
        assert told["difference"] == pytest.approx(told["after"] - told["before"]) and told["low"] <= told["difference"] <= told["high"]


def test_resampling_perplexity(runs, tasks):
    """The metric of all examples is that of their sums, whichever examples these are."""
    run, dataset = Run.open(runs[1]), Dataset.open(tasks[0])
    metric = forgetting.perplexity(run, dataset, "val", 5)
    assert metric.stats.shape == (5, 2)
    nll, tokens = metric.stats[2]
    assert float(metric.reduce(metric.stats[2])) == pytest.approx(math.exp(nll / tokens))
    assert tokens == len(run.task.template.render(dataset.source("val")[2]).target_ids)


def test_a_folder_before_reads_as_the_run_does(tasks, tokenizer, start_training, tmp_path):
    """With a learning rate of 0 nothing is forgotten, also by a fresh adapter."""
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    flags = {"init_from": tmp_path / "hf", "steps": 1, "learning_rate": 0, "adapter": "lora", "copy_slots": "none"}
    finish(start_training(tmp_path / "new", **flags))
    found = result(launch("evaluate", workdir=tmp_path / "new", earlier=tasks[0], limit=4, output=tmp_path / "out", **USUAL))
    assert found["same_prompts"] and found["output"] == str(tmp_path / "out" / "forgetting.json")
    for name, score in found["earlier"][str(tasks[0])]["scores"].items():
        assert score["before"] is None or score["after"] == pytest.approx(score["before"], rel=1e-4, abs=1e-6), name


def test_mistakes_in_the_report(runs, tasks, unbroken_run, tmp_path):
    old, new = runs
    usual = {"workdir": new, **USUAL}
    refused(launch("evaluate", **usual, earlier=tasks[2]), f"--earlier={tasks[2]}", "another tokenizer", f"--tokenizer={new}/tokenizer")
    refused(launch("evaluate", **usual, earlier=tasks[0], outputs="x.jsonl"), "--outputs=x.jsonl", "--earlier")
    refused(launch("evaluate", **usual, before=old), f"--before={old}", "--earlier")
    refused(launch("evaluate", workdir=unbroken_run, earlier=tasks[0]), str(unbroken_run), "--before")
    refused(launch("evaluate", **usual, earlier=tasks[0], before=tmp_path / "none"), "none", "gone", "--before")
    changed = tmp_path / "changed"
    shutil.copytree(new, changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"base_fingerprint": "other"}))
    refused(launch("evaluate", workdir=changed, earlier=tasks[0]), str(old), "is not what")
