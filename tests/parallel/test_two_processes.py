"""Training in two real processes: the same losses as in one, one log, and no process left waiting."""

import json
import signal
import socket
import time

import launched
import numpy as np
import pytest
import tiny
from launched import Launched
from safetensors.numpy import load_file

from rgjax.hf import export

FLAGS = {
    "layers": 1, "width": 32, "heads": 2, "length": 192, "target_length": 64, "batch_size": 8, "dropout": 0, "packing": "false",
    "warmup_steps": 2, "log_every": 1, "eval_every": 2, "save_every": 2, "samples": 2, "steps": 6, "schedule": "constant",
    "mesh": "data:2,fsdp:2", "scan": "false",
}  # fmt: skip


def begin(flags, devices, processes=1):
    """Starts launch.train in `processes` processes of `devices` fake devices each; `flags` may be a list, one for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for process in range(processes):
        place = {"RGJAX_COORDINATOR": f"127.0.0.1:{port}", "RGJAX_PROCESSES": str(processes), "RGJAX_PROCESS": str(process)}
        own = flags[process] if isinstance(flags, list) else flags
        started.append(Launched("launch.train", own, devices, **(place if processes > 1 else {})))
    return started


def end(started, code=0):
    """Waits for all of them; returns (stdout, stderr) of each."""
    try:
        told = [p.communicate(timeout=240) for p in started]
    finally:
        for p in started:
            p.kill()
    assert [p.returncode for p in started] == [code] * len(started), told
    return told


@pytest.fixture(scope="module")
def usual(dataset_folder, compilation_cache):
    return FLAGS | {"dataset": dataset_folder, "compilation_cache": compilation_cache}


@pytest.fixture(scope="module")
def alone(usual, tmp_path_factory):
    """The workdir of one process with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    end(begin(usual | {"workdir": workdir}, devices=4))
    return workdir


def logged(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {v["step"]: v[name] for v in lines if name in v}


def test_two_processes_train_resume_and_agree_with_one(usual, alone, tmp_path):
    workdir = tmp_path / "run"
    flags = usual | {"workdir": workdir}
    (out, _), (other_out, other_err) = end(begin(flags | {"steps": 4}, devices=2, processes=2))
    assert json.loads(out.splitlines()[-1])["step"] == 4
    assert "{" not in other_out and "step " not in other_err  # only the first process speaks
    end(begin(flags, devices=2, processes=2))
    losses = tiny.logged_losses(workdir)
    assert losses == pytest.approx(tiny.logged_losses(alone), rel=1e-4) and list(losses) == [1, 2, 3, 4, 5, 6]
    for name in ("val_loss", "val_accuracy", "target_tokens_per_second", "padding_share"):
        assert list(logged(workdir, name)) == list(logged(alone, name))
    assert logged(workdir, "val_loss") == pytest.approx(logged(alone, "val_loss"), rel=1e-4)
    assert logged(workdir, "padding_share")[2] == pytest.approx(logged(alone, "padding_share")[2], abs=0.1)
    samples = [json.loads(line) for line in (workdir / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [s["step"] for s in samples] == [2, 2, 4, 4, 6, 6]
    assert len(list((workdir / "tensorboard").iterdir())) == 1  # written anew by the second run, from one process


def test_a_signal_to_one_process_stops_both_at_the_same_step(usual, tmp_path):
    workdir = tmp_path / "run"
    flags = usual | {"workdir": workdir, "steps": 100_000, "eval_every": 100_000, "save_every": 100_000, "samples": 0}
    started = begin(flags, devices=2, processes=2)
    deadline = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or not (workdir / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline and started[0].poll() is None, started[0].communicate()
        time.sleep(0.2)
    started[1].send_signal(signal.SIGTERM)
    (out, err), _ = end(started)
    step = json.loads(out.splitlines()[-1])["step"]
    assert 0 < step < 100_000 and f"step {step} is saved" in err
    assert (workdir / "checkpoints" / str(step)).is_dir()


def test_micro_batches_are_the_same_in_two_processes(usual, tmp_path):
    """Their dropout, drawn for each, tells it."""
    flags = usual | {"accumulate": 2, "dropout": 0.3, "samples": 0, "steps": 2}
    end(begin(flags | {"workdir": tmp_path / "one"}, devices=4))
    end(begin(flags | {"workdir": tmp_path / "two"}, devices=2, processes=2))
    assert tiny.logged_losses(tmp_path / "two") == pytest.approx(tiny.logged_losses(tmp_path / "one"), rel=1e-5)


def test_two_processes_learn_from_a_teacher_as_one_does(usual, alone, tmp_path):
    done = launched.run("launch.distill", {"workdir": alone, "output": tmp_path / "logits", "logits": 4})
    assert done.returncode == 0, done.stderr
    flags = usual | {"distill": tmp_path / "logits", "samples": 0, "steps": 2}
    end(begin(flags | {"workdir": tmp_path / "one"}, devices=4))
    end(begin(flags | {"workdir": tmp_path / "two"}, devices=2, processes=2))
    taught = tiny.logged_losses(tmp_path / "one")
    assert tiny.logged_losses(tmp_path / "two") == pytest.approx(taught, rel=1e-4)
    assert taught[1] < 0.9 * tiny.logged_losses(alone)[1]  # half of the loss is the divergence


def test_two_processes_begin_with_the_same_folder(usual, tokenizer, tmp_path):
    """Each reads its own slices; at a learning rate of 0 the run still holds the folder's weights."""
    made = tiny.factory("llama", tokenizer.vocab_size, layers=1, width=32, heads=2, kv_heads=2, head_dim=16, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    flags = {"workdir": tmp_path / "run", "init_from": tmp_path / "hf", "mesh": "data:1,fsdp:4", "learning_rate": 0, "samples": 0, "steps": 2}
    end(begin(usual | flags, devices=2, processes=2))
    done = launched.run("launch.export", {"workdir": tmp_path / "run", "output": tmp_path / "out"})
    assert done.returncode == 0, done.stderr
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "out"))
    assert set(before) == set(after) and all((before[name] == after[name]).all() for name in before)


def test_two_processes_train_both_sides_as_one_does(usual, tokenizer, tmp_path):
    """Resumed halfway at that."""
    made = tiny.factory("llama", tokenizer.vocab_size, layers=1, width=32, heads=2, kv_heads=2, head_dim=16, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    left_out = ("layers", "width", "heads", "dropout", "warmup_steps", "schedule")
    flags = {name: value for name, value in usual.items() if name not in left_out} | {"init_from": tmp_path / "hf", "samples": 0}
    flags |= {"task": "adversarial", "estimator": "gumbel", "d_steps": 1, "d_warmup": 1, "d_width": 8, "d_filters": 4, "d_windows": "2,3"}
    flags |= {"target_length": 24, "old_samples": 8, "steps": 4, "buckets": 1}
    end(begin(flags | {"workdir": tmp_path / "two", "steps": 2}, devices=2, processes=2))
    end(begin(flags | {"workdir": tmp_path / "two"}, devices=2, processes=2))
    end(begin(flags | {"workdir": tmp_path / "one"}, devices=4))
    for name in ("loss", "d_loss", "g_loss", "grad_norm", "distinct_2", "entropy", "val_loss"):
        told = logged(tmp_path / "one", name)
        assert logged(tmp_path / "two", name) == pytest.approx(told, rel=2e-3, nan_ok=True), name
        assert any(value is not None for value in told.values())


def test_two_processes_hold_on_to_an_earlier_task_as_one_does(usual, tokenizer, dataset_folder, tmp_path):
    made = tiny.factory("llama", tokenizer.vocab_size, layers=1, width=32, heads=2, kv_heads=2, head_dim=16, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    flags = usual | {"init_from": tmp_path / "hf", "mesh": "data:1,fsdp:4", "ewc": 50, "ewc_data": dataset_folder, "ewc_examples": 4, "samples": 0}
    end(begin(flags | {"workdir": tmp_path / "two", "steps": 2}, devices=2, processes=2))
    end(begin(flags | {"workdir": tmp_path / "two", "steps": 4}, devices=2, processes=2))
    end(begin(flags | {"workdir": tmp_path / "one", "steps": 4}, devices=4))
    for name in ("loss", "penalty"):
        assert logged(tmp_path / "two", name) == pytest.approx(logged(tmp_path / "one", name), rel=1e-3), name
    one, two = (load_file(tmp_path / name / "ewc.safetensors") for name in ("one", "two"))
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-4 * abs(one[name]).max(), err_msg=name)
