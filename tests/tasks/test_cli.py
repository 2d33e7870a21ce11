"""The launchers as a user runs them: train, evaluate, generate, export, report, show, inspect; and what they say to a mistake."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from launched import finish, launch, refused, result

from rgjax.config import DecodeConfig
from rgjax.errors import UserError
from rgjax.tasks.decoding import configured
from rgjax.train.workdir import read

ROOT = pathlib.Path(__file__).parents[2]
LAUNCHERS = ("prepare", "train", "evaluate", "generate", "export", "report", "show", "embed", "inspect", "distill", "refine")


def alone(name, **flags):
    """The same as a user runs it, with an interpreter of its own."""
    command = [sys.executable, "-m", f"launch.{name}", *(f"--{k}={v}" for k, v in flags.items())]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(start_training, tmp_path_factory):
    """(workdir of six steps, what launch.train printed)."""
    workdir = tmp_path_factory.mktemp("cli") / "run"
    process = start_training(workdir, steps=6, eval_every=3, save_every=3, samples=2, max_new_tokens=24, decode_batch=8, control_dropout=0.2)
    return workdir, finish(process)


@pytest.fixture(scope="module")
def inputs(trained, dataset, tmp_path_factory):
    """Five inputs without reasons, and the declared control codes."""
    path = tmp_path_factory.mktemp("inputs") / "in.jsonl"
    source = dataset.source("val")
    rows = [{k: v for k, v in source[i].items() if k != "reason"} for i in range(5)]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


def reasons(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_training_leaves_a_run(trained):
    workdir, printed = trained
    assert printed["step"] == printed["steps"] == 6 and printed["finished"]
    assert {"config.json", "flags.cfg", "checkpoints", "metrics.jsonl", "tensorboard", "samples.jsonl", "tokenizer"} <= {
        p.name for p in workdir.iterdir()
    }
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 6
    samples = reasons(workdir / "samples.jsonl")
    assert [s["step"] for s in samples] == [3, 3, 6, 6] and all(isinstance(s["reason"], str) for s in samples)


def test_a_run_goes_on_or_begins_anew_by_its_own_flagfile(trained, tmp_path):
    """Its options mean the same to the launcher; the run has ended, so nothing more is trained. Another workdir repeats it."""
    workdir, _ = trained
    fresh = result(alone("train", flagfile=workdir / "flags.cfg", workdir=tmp_path / "again"))
    assert fresh["finished"] and fresh["loss"] == pytest.approx(trained[1]["loss"])
    before = (workdir / "config.json").read_text()
    again = result(launch("train", flagfile=workdir / "flags.cfg"))
    assert (again["step"], again["finished"]) == (6, True) and (workdir / "config.json").read_text() == before


def test_a_run_is_measured_reported_shown_and_handed_over(trained, tmp_path):
    workdir, _ = trained
    measured = result(alone("evaluate", workdir=workdir, split="val", resamples=100, limit=8))
    assert measured == json.loads((workdir / "evaluation.json").read_text()) | {"output": str(workdir / "evaluation.json")}
    assert measured["references"]["perplexity"] > 1
    assert len(reasons(workdir / "outputs.jsonl")) == 8
    exported = result(alone("export", workdir=workdir, output=tmp_path / "hf"))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in pathlib.Path(exported["output"]).iterdir()}
    codes, vocabulary = (json.loads((tmp_path / "hf" / name).read_text()) for name in ("control_codes.json", "tokenizer.json"))
    assert {name: list(values) for name, values in codes.items()} == read(workdir)["controls"]
    assert {token for values in codes.values() for token in values.values()} <= vocabulary["model"]["vocab"].keys()
    page = pathlib.Path(result(alone("report", workdir=workdir))["report"])
    assert "<html" in page.read_text(encoding="utf-8")[:300]
    shown = alone("show", workdir=workdir, count=2)
    result(shown)
    assert len(shown.stdout.splitlines()) > 4
    inspected = alone("inspect", path=workdir, samples=2)
    told = result(inspected)
    assert (told["kind"], told["checkpoints"]["latest"], len(told["samples"])) == ("run", 6, 2) and inspected.stdout.count("[[") >= 2


@pytest.mark.parametrize(
    "flags, most",
    [
        ({"method": "greedy", "max_length": 6, "length_unit": "words"}, 6),
        ({"method": "greedy", "guidance": 2.0, "max_length": 6, "length_unit": "words"}, 6),
        ({"method": "mbr", "candidates": 3, "n_best": 2, "max_length": 10, "length_unit": "tokens"}, 400),
        ({"method": "beam", "beams": 2, "max_length": 30, "length_unit": "characters"}, 30),
    ],
)
def test_reasons_are_written_in_order_within_their_limits(trained, inputs, tmp_path, flags, most):
    out = tmp_path / "out.jsonl"
    printed = result(launch("generate", workdir=trained[0], input=inputs, output=out, decode_batch=6, max_new_tokens=24, **flags))
    rows, wanted = reasons(out), reasons(inputs)
    assert printed["reasons"] == len(rows) == 5
    assert [r["item"] for r in rows] == [w["item"]["id"] for w in wanted]
    for row in rows:
        texts = row.get("reasons", [row["reason"]])
        assert row["reason"] == texts[0] and len(texts) <= flags.get("n_best", 1)
        assert all(len(t.split() if flags["length_unit"] == "words" else t) <= most for t in texts)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_mistakes_before_training(dataset_folder, tmp_path):
    new = tmp_path / "run"
    refused(alone("train", dataset=tmp_path / "none", workdir=new), "none", "launch.prepare")
    refused(launch("train", dataset=dataset_folder, workdir=new, mesh="data:3"), "--mesh=data:3")
    refused(launch("train", dataset=dataset_folder, workdir=new, batch_size=5000), "--batch_size=5000", "larger")
    refused(alone("train", dataset=dataset_folder, workdir=new, lenght=64), "lenght")
    refused(launch("train", dataset=dataset_folder, workdir=new, lr_groups="atention=0"), "--lr_groups", "atention", "such as")
    refused(launch("train", dataset=dataset_folder, workdir=new, steps="many"), "steps", "many")
    refused(launch("train", dataset=dataset_folder), "--workdir is missing")
    refused(launch("train", heat=2), "--workdir is missing")
    refused(launch("train", workdir=new, heat=2), "--heat does nothing in --task=reason; leave it out, or give --task=adversarial")
    assert not new.exists()


def test_mistakes_with_a_run(trained, inputs, dataset, tmp_path):
    workdir, out = trained[0], tmp_path / "out.jsonl"
    refused(launch("generate", workdir=tmp_path, input=inputs, output=out), "holds no run")
    codes = {"workdir": workdir, "input": inputs, "output": out}
    refused(alone("generate", **codes, control="mood=x"), "mood", *dataset.controls)
    name, values = next(iter(dataset.controls.items()))
    refused(launch("generate", **codes, control=f"{name}=loudest"), "loudest", *values)
    refused(launch("evaluate", workdir=workdir, split="nonsense"), "split", "train|val|test")
    refused(launch("train", workdir=workdir, width=48), "--width=32", "48")
    assert not list(tmp_path.iterdir())


def test_guidance_needs_codes_that_were_learnt(trained):
    facts, given = read(trained[0]), DecodeConfig(guidance=2.0)
    assert configured(facts, given, {"guidance"}).guidance == 2.0
    with pytest.raises(UserError, match="--guidance=2 weighs control codes, and this run was trained without any"):
        configured(facts | {"controls": {}}, given, {"guidance"})
    assert facts["reads_bare"]
    without = facts | {"reads_bare": False}
    with pytest.raises(UserError, match="--guidance=2 .* train it with --control_dropout=0.1"):
        configured(without, given, {"guidance"})
    assert configured(without, DecodeConfig(), {"guidance"}).guidance == 1.0


def test_a_folder_that_holds_no_run(dataset_folder, tmp_path):
    config = tmp_path / "config.json"
    for body in ({"model_type": "llama"}, []):
        config.write_text(json.dumps(body))
        refused(launch("train", dataset=dataset_folder, workdir=tmp_path), f"--workdir={tmp_path} is not empty and holds no run")
        refused(launch("evaluate", workdir=tmp_path), f"{tmp_path} holds no run", "--workdir")
    run = {"dataset_fingerprint": "", "model": {}, "train": {}}
    for text in ("{", "[" * 200_000, json.dumps(run | {"model": 5})):
        config.write_text(text)
        with pytest.raises(UserError, match=f"{config} is damaged.*; restore it"):
            read(tmp_path)
    assert list(tmp_path.iterdir()) == [config]


def test_another_tokenizer_in_the_workdir_is_noticed(trained, inputs, tmp_path):
    from rgjax.data.tokenizer import train_bpe

    copy = tmp_path / "run"
    shutil.copytree(trained[0], copy)
    train_bpe(["another vocabulary"] * 3, 400, 2, {}).save(copy / "tokenizer")
    refused(launch("generate", workdir=copy, input=inputs, output=tmp_path / "out.jsonl"), "tokenizer", "tokens")
    assert not (tmp_path / "out.jsonl").exists()


def test_every_launcher_explains_itself():
    """Help needs no accelerator library, so it comes at once."""
    code = "import runpy, sys; sys.argv = ['x', '--help']; sys.modules['jax'] = None; runpy.run_module('launch.{}', run_name='__main__')"
    for name in LAUNCHERS:
        done = subprocess.run([sys.executable, "-c", code.format(name)], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"python -m launch.{name}" in done.stdout
        first = {"prepare": "--output=''", "embed": "--init_from=''", "inspect": "--path=''", "refine": "--init_from=''"}.get(name, "--workdir=''")
        assert first in done.stdout


def test_what_is_no_json_is_never_printed():
    code = "from launch import app; app.run(lambda: {'loss': float('nan')}, '')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout and "JSON" in done.stderr


def test_help_that_nobody_reads_to_its_end_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "launch.train", "--help"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
