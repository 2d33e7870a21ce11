"""A disk that fills while a checkpoint is written: one sentence, and the run goes on from the checkpoint before."""

import json
import os
import resource
import subprocess

import pytest
import tiny

from rgjax.train import integrity


def sentence(process, errors):
    assert process.returncode == 2 and "Traceback" not in errors, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "No space was left" in line and "is whole" in line and "run the same command again" in line
    return line


def test_files_that_may_not_grow(start_training, unbroken_run, tmp_path):
    """A limit on the size of files stands for the full disk: what is written is cut in the same place."""
    workdir = tmp_path / "run"
    done = start_training(workdir, steps=12, save_every=4, keep=9)
    done.communicate(timeout=240)
    for step in (8, 12):
        integrity.set_aside(workdir / "checkpoints" / str(step)).rename(tmp_path / str(step))
    process = start_training(workdir, save_every=4)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, errors = process.communicate(timeout=240)
    assert "checkpoint 4 is whole" in sentence(process, errors)
    assert [p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()] == ["4"]
    out, errors = start_training(workdir, save_every=4).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12 and "continuing at step 4" in errors
    assert tiny.logged_losses(workdir) == pytest.approx(tiny.logged_losses(unbroken_run), rel=1e-6)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1,300 KB, where the system lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300k", "none", place], capture_output=True, text=True)
    if os.geteuid() or made.returncode:
        pytest.skip("mounting a file system needs rights that this user lacks")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_full(start_training, small_disk):
    workdir = small_disk / "run"
    process = start_training(workdir, steps=40, save_every=2, keep=20)
    _, errors = process.communicate(timeout=240)
    line = sentence(process, errors)
    whole = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert whole and f"checkpoint {max(int(p.name) for p in whole)} is whole" in line
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    out, errors = start_training(workdir, steps=40, save_every=20).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 40, errors
