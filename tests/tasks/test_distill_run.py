"""Distillation as a user runs it: the teacher's reasons as a dataset, its probabilities beside one, and students of both."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
import tiny
from launched import launch, refused, result

from rgjax.config import PrepareConfig
from rgjax.data import pipeline
from rgjax.data.dataset import Dataset
from rgjax.data.prepare import prepare
from rgjax.data.shape import Shape
from rgjax.data.teacher import TeacherLogits
from rgjax.tasks import rewrite as rewrite_lib
from rgjax.tasks.run import Run

TOP = 5


@pytest.fixture(scope="module")
def logits(unbroken_run, tmp_path_factory):
    """(folder of the teacher's probabilities, what was printed)."""
    folder = tmp_path_factory.mktemp("logits") / "teacher"
    return folder, result(launch("distill", workdir=unbroken_run, output=folder, logits=TOP, temperatures="1,2"))


def finished(process):
    out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, out, errors)


def test_the_cache_holds_the_teachers_own_logits(unbroken_run, logits, dataset):
    folder, printed = logits
    assert printed["examples"] == dataset.count("train")
    run = Run.open(unbroken_run)
    task, shape = run.task, Shape.of(run.task.input, "causal")

    @jax.jit
    def scored(params, batch):
        model = task.factory.model(params)
        head, shrink = model.head()
        return model(batch) * shrink @ head.T

    for temperature in (1.0, 2.0):
        records = TeacherLogits.open(folder, temperature).beside(dataset.source("train"))
        for number in (0, 3, len(records) - 1):
            example = records[number]
            arrays = pipeline.as_fed({k: v for k, v in example.items() if k != "teacher"}, task.template, task.input, "causal")
            batch = pipeline.pad_rows([arrays], shape, 1)
            full = np.asarray(scored(run.params, batch))[0][batch["weights"][0] > 0].astype(np.float64)
            record = example["teacher"]
            assert np.array_equal(record.targets, batch["targets"][0][batch["weights"][0] > 0])
            best = np.sort(full, axis=-1)[:, ::-1][:, :TOP]
            np.testing.assert_allclose(np.take_along_axis(full, record.ids, -1), best, atol=1e-4)
            np.testing.assert_allclose(record.logits[:, :TOP], best - best[:, :1], atol=2e-2)
            p = np.exp(full / temperature - (full / temperature).max(-1, keepdims=True))
            held = np.exp(np.concatenate([record.logits[:, :TOP] / temperature, record.logits[:, TOP:]], -1).astype(np.float64))
            np.testing.assert_allclose(held / held.sum(-1, keepdims=True), np.concatenate(
                [np.take_along_axis(p, record.ids, -1), p.sum(-1, keepdims=True) - np.take_along_axis(p, record.ids, -1).sum(-1, keepdims=True)], -1
            ) / p.sum(-1, keepdims=True), atol=3e-3)  # fmt: skip


def test_a_student_learns_from_it_and_continues_exactly(logits, start_training, tmp_path):
    folder, _ = logits
    flags = {"distill": folder, "distill_weight": 0.7, "distill_temperature": 2.0, "width": 16, "schedule": "constant"}
    result(finished(start_training(tmp_path / "whole", steps=6, **flags)))
    result(finished(start_training(tmp_path / "run", steps=3, **flags)))
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    result(finished(start_training(tmp_path / "run", steps=6, devices=4, mesh="data:2,fsdp:2", **flags | {"distill": moved})))
    one, other = tiny.logged_losses(tmp_path / "run"), tiny.logged_losses(tmp_path / "whole")
    np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)
    result(finished(start_training(tmp_path / "plain", steps=1, **{k: v for k, v in flags.items() if not k.startswith("distill")})))
    assert abs(tiny.logged_losses(tmp_path / "plain")[1] - other[1]) > 1e-2
    bucketed = flags | {"packing": False, "architecture": "seq2seq", "length": 128}
    refused(finished(start_training(tmp_path / "more", steps=1, **bucketed | {"length": 64})), "--length (less --target_length) 128, not 64")
    assert np.isfinite(result(finished(start_training(tmp_path / "more", steps=2, **bucketed)))["step"])


def test_a_teachers_reasons_are_a_dataset(unbroken_run, dataset, start_training, tmp_path, monkeypatch):
    flags = {"workdir": unbroken_run, "output": tmp_path / "taught", "method": "beam", "beams": 2, "n_best": 2, "max_new_tokens": 12}
    printed = result(launch("distill", **flags))
    made = Dataset.open(tmp_path / "taught")
    made.verify()
    assert made.count("val") == dataset.count("val") and made.fingerprint != dataset.fingerprint
    assert list(made.examples("val")) == list(dataset.examples("val"))
    assert dataset.count("train") <= made.count("train") == printed["counts"]["train"] <= 2 * dataset.count("train")
    assert made.manifest["tokenizer"] == dataset.manifest["tokenizer"]
    given = [json.dumps(e | {"reason": ""}, sort_keys=True) for e in dataset.examples("train")]
    got = [json.dumps(e | {"reason": ""}, sort_keys=True) for e in made.examples("train")]
    assert list(dict.fromkeys(got)) == list(dict.fromkeys(given)) and all(e["reason"].strip() for e in made.examples("train"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taught"]
    refused(launch("distill", **flags), "taught exists already", "--overwrite")
    for output in (dataset.folder, dataset.folder / "more", dataset.folder.parent):
        refused(launch("distill", **flags | {"output": output, "overwrite": True}), f"--output={output}", "which is read")
    assert result(finished(start_training(tmp_path / "student", dataset=tmp_path / "taught", steps=1)))["step"] == 1


def test_reasons_gathered_before_a_stop_are_kept(unbroken_run, dataset, tmp_path, monkeypatch):
    from rgjax.tasks.decoding import configured

    run, calls = Run.open(unbroken_run), []
    decode = configured(run.facts, run.facts["decode"], {"method"})

    class Echo:
        """Writes the title; stops in the second chunk at first."""

        class writer:
            rows = 1

        def write(self, examples, first_row):
            calls.append(first_row)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return [[e["item"]["title"]] for e in examples]

    monkeypatch.setattr(run.task, "writer", lambda params, config, liked: Echo())
    monkeypatch.setattr(rewrite_lib, "CHUNK", 64)
    go = lambda: rewrite_lib.rewrite(run, dataset, decode, str(tmp_path / "out"), False, lambda done, total: None)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert not (tmp_path / "out").exists()
    go()
    assert calls[:3] == [0, 64, 64]
    assert all(e["reason"] == e["item"]["title"] for e in Dataset.open(tmp_path / "out").examples("train"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_mistakes(unbroken_run, logits, dataset_folder, tmp_path):
    folder, teacher = logits[0], {"workdir": unbroken_run, "output": tmp_path / "out"}
    refused(launch("distill", **teacher, logits=4, method="beam"), "--method is given", "--logits")
    refused(launch("distill", **teacher, temperatures="1"), "--temperatures is given")
    refused(launch("distill", **teacher, logits=4, temperatures="1,0"), "--temperatures=1,0")
    refused(launch("distill", **teacher, logits=900), "--logits=900", "600 tokens")
    refused(launch("distill", workdir=unbroken_run, output=folder, logits=4), "exists already")
    refused(launch("distill", workdir=unbroken_run, output=dataset_folder, logits=4, overwrite=True), "which is read")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    refused(launch("distill", workdir=unbroken_run, output=tmp_path / "mine", logits=4, overwrite=True), "teacher.json", "leaves it alone")
    small = {"demo_users": 40, "demo_items": 30, "demo_examples": 60}
    prepare(PrepareConfig(layout="demo", output=str(tmp_path / "foreign"), vocab_size=500, **small))
    refused(launch("distill", **teacher, logits=4, dataset=tmp_path / "foreign"), "another tokenizer", "--tokenizer=")
    new = {"workdir": tmp_path / "run", "dataset": dataset_folder, "length": 192, "target_length": 64, "batch_size": 4}
    refused(launch("train", **new, distill_weight=0.2), "--distill_weight is given")
    refused(launch("train", **new, distill=folder, replay=dataset_folder), "--distill and --replay")
    refused(launch("train", **new, distill=folder, control_dropout=0.1), "--control_dropout=0.1")
    refused(launch("train", **new, distill=folder, rdrop=1.0), "--rdrop=1", "--distill")
    refused(launch("train", **new, distill=folder, distill_temperature=3), "--distill_temperature=3", "1, 2")
    refused(launch("train", **new, distill=folder, copy_slots="none"), "--copy_slots titles, not none")
    refused(launch("train", **new | {"length": 128}, distill=folder), "128, not 64")
    refused(launch("train", **new | {"dataset": tmp_path / "foreign"}, distill=folder), "another tokenizer")
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()
