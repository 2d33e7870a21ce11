"""--replay as a user gives it: what is mixed in belongs to the run, under whatever path it lies."""

import json
import shutil
import subprocess

import pytest
from launched import launch, refused, result

from rgjax.config import PrepareConfig
from rgjax.data.prepare import prepare


@pytest.fixture(scope="module")
def folders(dataset_folder, tmp_path_factory):
    """(earlier task, another earlier task, one with a vocabulary of its own)."""
    place, small = tmp_path_factory.mktemp("tasks"), {"demo_users": 40, "demo_items": 30, "demo_examples": 60}
    shared = {"layout": "demo", "tokenizer": str(dataset_folder / "tokenizer"), **small}
    for seed in (1, 2):
        prepare(PrepareConfig(output=str(place / f"task{seed}"), seed=seed, **shared))
    prepare(PrepareConfig(output=str(place / "foreign"), layout="demo", vocab_size=500, **small))
    return place / "task1", place / "task2", place / "foreign"


def test_a_run_keeps_to_the_datasets_it_replays(folders, dataset_folder, start_training, tmp_path):
    one, two, foreign = folders
    workdir, copy = tmp_path / "run", tmp_path / "moved"

    def train(**flags):
        process = start_training(workdir, **flags)
        out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess([], process.returncode, out, errors)

    assert result(train(replay=f"{one}, {two}", replay_share=0.4, steps=2))["step"] == 2
    assert len(json.loads((workdir / "config.json").read_text())["replay_fingerprints"]) == 2
    refused(launch("train", workdir=workdir, replay=one), "other datasets than --replay=")
    refused(launch("train", workdir=workdir, replay_share=0.2), "--replay_share=0.4")
    shutil.copytree(one, copy)
    assert result(train(replay=f"{copy},{two}", replay_share=0.4, steps=3))["step"] == 3
    new = {"dataset": dataset_folder, "workdir": tmp_path / "new"}
    refused(launch("train", **new, replay=foreign), f"--replay={foreign}", "another tokenizer", "--tokenizer=")
    refused(launch("train", **new, replay=tmp_path / "none"), "not a dataset folder")
    assert not (tmp_path / "new").exists()
