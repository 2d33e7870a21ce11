"""A loss or gradient that is not finite: the step that is left out changes nothing, and the run that ends says why."""

import dataclasses
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.config import OptimizerConfig
from rgjax.errors import UserError
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks import training
from rgjax.tasks.reason import sums
from rgjax.train import optimizer, workdir
from rgjax.train.nonfinite import MOST_IN_A_ROW, NonFinite, kept
from rgjax.train.state import create
from rgjax.train.step import NOTHING_FIXED, make_train_step

MESH = mesh_lib.make("data:1")
POISON = 7  # a first token of the first row that makes the loss nan


traced = []  # an entry whenever a program is made of `poisoned`


def poisoned(model, batch, key):
    """The task's sums, with a loss that is nan where the batch is marked, and a gradient alone that is where it is marked by 8."""
    found = sums(model, batch, key)
    traced.append(1)
    mark = batch["tokens"][0, 0]
    rootless = mark == POISON + 1  # the slope of a root is infinite at 0, and 0 * inf is nan
    root = jnp.sqrt(jnp.where(rootless, 0.0 * found["loss"], 1.0)) - jnp.where(rootless, 0.0, 1.0)
    return found | {"loss": jnp.where(mark == POISON, jnp.nan, found["loss"]) + root}


@pytest.mark.parametrize("mark, accumulate", [(POISON, 1), (POISON + 1, 1), (POISON, 2)])
def test_a_skipped_step_leaves_everything_but_its_number(mark, accumulate):
    made, config = tiny.factory("llama", layers=1), OptimizerConfig(ema=0.5, accumulate=accumulate)
    tx = optimizer.make(config, 10)
    state, _ = create(made, tx, MESH, True, 0)
    step = make_train_step(made, poisoned, tx, config, skip=True)
    batches = [tiny.training_batch(made, 4, 16, seed=n) for n in range(3)]
    for n, batch in enumerate(batches):
        batch["tokens"][0, 0] = mark if n == 1 else 3
    placed = [sharding.put(b, MESH, accumulate) for b in batches]
    state, metrics = step(state, NOTHING_FIXED, placed[0])
    assert np.isfinite(float(metrics["grad_norm"])) and np.isfinite(float(metrics["loss"]))
    programs = len(traced)
    before = jax.tree.map(np.asarray, state)
    state, metrics = step(state, NOTHING_FIXED, placed[1])
    assert not np.isfinite(float(metrics["loss"] if mark == POISON else metrics["grad_norm"]))
    jax.tree.map(np.testing.assert_array_equal, before._replace(step=np.int32(2)), jax.tree.map(np.asarray, state))
    state, metrics = step(state, NOTHING_FIXED, placed[2])
    assert np.isfinite(float(metrics["loss"])) and int(state.step) == 3
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before.params, state.params)
    assert all(jax.tree.leaves(changed))
    assert len(traced) == programs  # decided on the device: one program for both kinds of step


@pytest.fixture
def loop(dataset_folder, tmp_path, monkeypatch):
    """loop(bad, **train) -> a run of 8 steps whose batches numbered in `bad` give a nan."""

    def build(bad, **train):
        sections = {name: cls() for name, cls in workdir.SECTIONS.items()}
        changes = {
            "input": {"dataset": str(dataset_folder), "length": 192, "target_length": 64, "batch_size": 4},
            "model": {"layers": 1, "width": 32, "heads": 2, "dropout": 0.0},
            "optimizer": {"warmup_steps": 4, "schedule": "constant"},
            "train": {"workdir": str(tmp_path / "run"), "steps": 8, "log_every": 1, "eval_every": 100, "compilation_cache": "", "samples": 0} | train,
        }
        sections = {name: dataclasses.replace(section, **changes.get(name, {})) for name, section in sections.items()}
        monkeypatch.setattr(training, "loss_of", lambda *_: poisoned)
        stored = workdir.read(tmp_path / "run") if workdir.exists(tmp_path / "run") else None
        made = training.assemble(sections, stored, set())
        wait_for, count = made.meter.wait_for, [made.step]

        def marked(data):
            batch, count[0] = wait_for(data), count[0] + 1
            batch["tokens"][0, 0] = POISON if count[0] in bad else batch["tokens"][0, 0]
            return batch

        made.meter.wait_for = marked
        return made

    return build


def logged(tmp_path):
    return {row["step"]: row for row in map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())}


def test_skipped_steps_are_counted_over_continued_runs_and_delay_the_schedule(loop, tmp_path):
    first = loop({2}, nonfinite="skip", steps=4)
    assert first.run()["skipped"] == 1
    last = loop({6}, nonfinite="skip").run()
    rows = logged(tmp_path)
    assert list(rows) == list(range(1, 9)) and last["skipped"] == 2
    assert [rows[n]["skipped"] for n in rows] == [0, 1, 1, 1, 1, 2, 2, 2]
    assert "loss" not in rows[2] and "loss" not in rows[6] and all("loss" in rows[n] for n in (1, 3, 4, 5, 7, 8))
    rates = [rows[n]["learning_rate"] for n in (1, 3, 4, 5)]  # four steps of warm-up, which the skipped one is none of
    np.testing.assert_allclose(rates, [2e-4, 4e-4, 6e-4, 8e-4], rtol=1e-5)
    step, (rows_kept,) = kept(tmp_path / "run")
    assert step == 6 and rows_kept["tokens"].shape == (4, 192) and rows_kept["tokens"][0, 0] == POISON
    assert kept("", str(tmp_path / "run/nonfinite_step_2_part_0.npz"))[0] == 2


def test_a_run_stops_at_once_or_after_ten_in_a_row(loop, tmp_path, capsys):
    with pytest.raises(UserError, match=r"step 3 is nan.*nonfinite_step_3.*profiling\.replay.*--nonfinite=skip"):
        loop({3}, save_every=2).run()
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == ["2"]
    with pytest.raises(UserError, match="10 in a row"):
        loop(set(range(5, 30)), nonfinite="skip", steps=40).run()
    assert len(re.findall("was skipped", capsys.readouterr().err)) == MOST_IN_A_ROW - 1
    assert len(list((tmp_path / "run").glob("*.npz"))) == 2  # of each row of bad steps the first batch


@pytest.mark.parametrize("task", ["reason", "behaviour", "bundle"])
def test_the_replay_is_named_where_there_is_one(task, tmp_path):
    for how, rows in (("stop", 1), ("skip", MOST_IN_A_ROW)):
        watch = NonFinite(dataclasses.replace(workdir.SECTIONS["train"](), workdir=str(tmp_path), nonfinite=how, task=task))
        with pytest.raises(UserError, match="lower --learning_rate") as told:
            for step in range(rows):
                watch.note(step, {"loss": np.nan, "grad_norm": 1.0}, {})
        assert ("profiling.replay" in str(told.value)) == (task == "reason") and "; ;" not in str(told.value)


def test_what_is_kept_is_read_back_or_refused_by_name(tmp_path):
    watch = NonFinite(dataclasses.replace(workdir.SECTIONS["train"](), workdir=str(tmp_path), nonfinite="skip"))
    with pytest.raises(UserError, match="kept no batch"):
        kept(tmp_path)
    assert watch.note(1, {"loss": 1.0, "grad_norm": 2.0}, {}) == "" and watch.skipped == 0
    assert "step 2 is inf" in watch.note(2, {"loss": np.inf, "grad_norm": 2.0}, {"tokens": np.ones((2, 3), np.int32)})
    step, rows = kept(tmp_path)
    assert step == 2 and [r["tokens"].tolist() for r in rows] == [[[1] * 3] * 2]
    np.savez(tmp_path / "nonfinite_step_2_part_3.npz", step=2, part=3, parts=4, tokens=np.full((2, 3), 3))  # an earlier time, other processes
    os.utime(tmp_path / "nonfinite_step_2_part_3.npz", (1, 1))
    for part in (11, 2, 0):  # ordered as numbers
        again = NonFinite(watch.config, 0, (part, 1))
        again.note(2, {"loss": np.nan, "grad_norm": 2.0}, {"tokens": np.full((2, 3), part)})
    assert [int(r["tokens"][0, 0]) for r in kept(tmp_path)[1]] == [0, 2, 11]
    (tmp_path / "nonfinite_step_9_part_0.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match="nonfinite_step_9_part_0.npz is no batch"):
        kept(tmp_path)
