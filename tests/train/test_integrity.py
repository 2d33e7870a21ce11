"""Damaged checkpoints: each kind of damage to each file is noticed, named and survived."""

import json
import os
import re
import shutil

import launched
import pytest
import tiny

from rgjax.errors import UserError
from rgjax.train import integrity
from rgjax.train.checkpoint import Checkpoints


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


HOW = {
    "truncated": lambda p: os.truncate(p, p.stat().st_size // 2),
    "emptied": lambda p: os.truncate(p, 0),
    "removed": lambda p: p.unlink(),
    "flipped": flip,
}


@pytest.fixture(scope="module")
def run(start_training, tmp_path_factory):
    """A finished run with checkpoints 4, 8 and 12, the last one validated."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    process = start_training(workdir, save_every=4, keep=3)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir()) == [4, 8, 12]
    return workdir


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def largest(checkpoint):
    return max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("how", HOW)
def test_damage_of_any_file_is_named(run, tmp_path, how):
    files = [p.relative_to(run / "checkpoints/12") for p in sorted((run / "checkpoints/12").rglob("*")) if p.is_file()]
    assert integrity.damage(run / "checkpoints/12") == "" and len(files) > 8
    for name in files:
        shutil.copytree(run / "checkpoints/12", tmp_path / "12")
        HOW[how](tmp_path / "12" / name)
        found = integrity.damage(tmp_path / "12")
        if str(name) == integrity.MANIFEST:  # without one nothing is verified; one whose bit flipped accuses something
            assert bool(found) == (how != "removed")
        else:
            assert str(name) in found, (name, found)
        shutil.rmtree(tmp_path / "12")


@pytest.mark.parametrize("how", HOW)
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(run, copy, start_training, how):
    HOW[how](largest(copy / "checkpoints/12"))
    out, errors = start_training(copy, keep=3, save_every=4).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    (line,) = [line for line in errors.splitlines() if "is damaged" in line]
    assert "checkpoint 12" in line and largest(run / "checkpoints/12").name in line and "goes on from step 8" in line
    assert (copy / "checkpoints/damaged-12").is_dir() and integrity.damage(copy / "checkpoints/12") == ""
    assert tiny.logged_losses(copy) == pytest.approx(tiny.logged_losses(run), rel=1e-6)


def test_checkpoints_without_manifests_are_tried(run, copy, start_training):
    for path in (copy / "checkpoints").glob("*/manifest.json"):
        path.unlink()
    HOW["truncated"](largest(copy / "checkpoints/12"))
    HOW["emptied"](copy / "checkpoints/8/state/manifest.ocdbt")
    out, errors = start_training(copy, keep=3).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    assert "goes on from step 4" in errors and errors.count("is damaged") == 2
    assert tiny.logged_losses(copy) == pytest.approx(tiny.logged_losses(run), rel=1e-6)


@pytest.mark.parametrize("how", ["truncated", "emptied", "removed"])
def test_small_files_of_an_unverified_checkpoint_are_tried_too(run, copy, start_training, how):
    """Where its data stands and how far it came: a power cut may leave them empty."""
    for path in (copy / "checkpoints").glob("*/manifest.json"):
        path.unlink()
    HOW[how](next((copy / "checkpoints/12/data").glob("stream_*.json")))
    HOW[how](copy / "checkpoints/8/_CHECKPOINT_METADATA")
    out, errors = start_training(copy, keep=3).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    assert "goes on from step 4" in errors and errors.count("is damaged") == 2
    assert tiny.logged_losses(copy) == pytest.approx(tiny.logged_losses(run), rel=1e-6)


def test_metrics_that_hide_all_other_checkpoints_are_set_aside(run, copy, start_training):
    HOW["truncated"](copy / "checkpoints/12/metrics/metrics")
    with pytest.raises(UserError, match="12 is damaged"):
        Checkpoints(copy / "checkpoints", reading=True)
    out, errors = start_training(copy, keep=3).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    assert "continuing at step 8" in errors and "damaged-12" in errors


def test_when_none_is_good_all_are_named_and_kept(copy, start_training):
    for path in (copy / "checkpoints").iterdir():
        HOW["flipped"](largest(path))
    before = (copy / "metrics.jsonl").read_text()
    process = start_training(copy)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert all(re.search(rf"\b{step}: the content of state/", line) for step in (4, 8, 12))
    assert sorted(int(p.name) for p in (copy / "checkpoints").iterdir()) == [4, 8, 12]
    assert (copy / "metrics.jsonl").read_text() == before


def test_a_run_whose_only_checkpoint_was_set_aside_does_not_begin_anew(copy, start_training):
    for step in (4, 8, 12):
        integrity.set_aside(copy / "checkpoints" / str(step))
    process = start_training(copy)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "damaged checkpoints only" in errors


def test_readers_refuse_a_damaged_checkpoint(copy, tmp_path):
    HOW["flipped"](largest(copy / "checkpoints/12"))
    (tmp_path / "in.jsonl").write_text('{"item": {"id": "i1", "title": "x"}}\n')
    jobs = {"evaluate": {}, "export": {"output": tmp_path / "hf"}}
    jobs["generate"] = {"input": tmp_path / "in.jsonl", "output": tmp_path / "out.jsonl"}
    for name, more in jobs.items():
        done = launched.run(f"launch.{name}", {"workdir": copy} | more)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "checkpoints/12 is damaged" in done.stderr and "--checkpoint" in done.stderr
    assert not (tmp_path / "hf").exists() and not (tmp_path / "out.jsonl").exists()
