"""What the environment says of a cluster, the launcher of several local processes, and processes that lose each other."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import launched
import pytest
from environment import QUICK, ROOT
from test_two_processes import FLAGS, begin

from launch.cluster import local as local_lib
from rgjax.errors import UserError
from rgjax.parallel import cluster
from rgjax.parallel.cluster import Place, announced
from rgjax.train.stragglers import named

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}
PLAIN = {"RGJAX_COORDINATOR": "node1:9876", "RGJAX_PROCESSES": "2", "RGJAX_PROCESS": "1"}


@pytest.mark.parametrize(
    "env, expected",
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (PLAIN, Place("node1:9876", 2, 1, None)),
        (SLURM, Place("", 4, 3, [1])),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "3"}, Place("", 4, 3, [0])),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0", "SLURM_GPUS_ON_NODE": "8"}, Place("", 4, 3, list(range(8)))),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, Place("", 4, 3, [2, 3])),  # two tasks, and each sees both's
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_PER_TASK": "h200:2"}, Place("", 4, 3, [0, 1])),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "CUDA_VISIBLE_DEVICES": "0,1,2"}, Place("", 2, 1, [0, 1, 2])),
        (SLURM | {"RGJAX_COORDINATOR": "head:1"}, Place("head:1", 4, 3, [1])),
        (MPI, Place("", 2, 1, [1])),
        ({"RGJAX_COORDINATOR": "run-workers-0-0.run:9876", "RGJAX_PROCESSES": "4", "JOB_COMPLETION_INDEX": "2"},
         Place("run-workers-0-0.run:9876", 4, 2, None)),
    ],
)  # fmt: skip
def test_schedulers_are_recognised(env, expected):
    assert announced(env) == expected


@pytest.mark.parametrize(
    "env, message",
    [
        ({"RGJAX_PROCESS": "1"}, "RGJAX_PROCESS is set and RGJAX_COORDINATOR is not"),
        ({"RGJAX_COORDINATOR": "a:1"}, "RGJAX_PROCESSES .* is missing"),
        ({"RGJAX_COORDINATOR": "a:1", "RGJAX_PROCESSES": "2"}, "RGJAX_PROCESS .* is missing"),
        (PLAIN | {"RGJAX_PROCESSES": "two"}, "RGJAX_PROCESSES=two is no whole number"),
        (PLAIN | {"RGJAX_PROCESS": "2"}, "RGJAX_PROCESS=2 is none of the 2"),
        (PLAIN | {"RGJAX_COORDINATOR": "node1"}, "names no port"),
        (SLURM | {"SLURM_NTASKS": "8"}, "SLURM_NTASKS=8 contradicts"),
        ({k: v for k, v in MPI.items() if "uri" not in k}, "-x RGJAX_COORDINATOR"),
    ],
)
def test_a_contradiction_is_one_sentence(env, message):
    with pytest.raises(UserError, match=message):
        announced(env)


def test_local_processes_share_out_the_gpus(monkeypatch):
    begun = []
    monkeypatch.setattr(local_lib.subprocess, "Popen", lambda command, env, **how: begun.append(env))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,GPU-5f,7")
    local_lib.begin([], [None, None], [])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in begun] == ["0,2", "GPU-5f,7"]
    assert [announced(env) for env in begun] == [Place(begun[0]["RGJAX_COORDINATOR"], 2, n, None) for n in range(2)]
    done = launched.run("launch.cluster.local", ["--processes=3"], JAX_PLATFORMS="", CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 2 and "--processes=3 does not share out 2 GPUs" in done.stderr


def test_the_process_that_holds_up_the_others_is_named():
    assert "process 2 waits 0.500 s" in named({0: [0.01, 0, 1.0], 1: [0.02, 0, 1.0], 2: [0.5, 0, 1.0]})
    assert "process 0 takes 0.400 s to start" in named({0: [0.0, 0.4, 1.0], 1: [0.0, 0.01, 1.0]})
    assert named({0: [0.5, 0, 1.0], 1: [0.45, 0, 1.0]}) == named({0: [0.05, 0, 1.0], 1: [0.0, 0, 1.0]}) == named({0: [9, 9, 9]}) == ""


@pytest.fixture
def usual(dataset_folder, compilation_cache, tmp_path):
    flags = FLAGS | {"dataset": dataset_folder, "compilation_cache": compilation_cache, "workdir": tmp_path / "run", "samples": 0}
    return flags | {"mesh": "data:2", "steps": 100_000, "eval_every": 100_000, "save_every": 20, "log_every": 5}


def wait_for_steps(workdir, lines, alive):
    end = time.monotonic() + 200
    while not (workdir / "metrics.jsonl").exists() or len((workdir / "metrics.jsonl").read_text().splitlines()) < lines:
        assert time.monotonic() < end and alive()
        time.sleep(0.1)


def saved(workdir) -> bool:
    return any(p.name.isdigit() for p in (workdir / "checkpoints").glob("*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_process_ends_the_other(usual, victim):
    started = begin(usual, devices=1, processes=2)
    for lines in itertools.count(6):
        wait_for_steps(usual["workdir"], lines, lambda: started[0].poll() is None)
        if saved(usual["workdir"]):
            break
    started[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, errors = started[1 - victim].communicate(timeout=120)
    started[victim].communicate()
    assert time.monotonic() - began < 60 and started[1 - victim].returncode != 0
    if victim == 1:  # with the first process JAX's own service is gone too, which may end the others before they can say so
        assert started[0].returncode == 1 and "Another process of this run is gone" in errors and "Traceback" not in errors
    assert saved(usual["workdir"])


def test_a_damaged_shard_in_one_process_ends_both(usual, dataset_folder, tmp_path):
    """The other process reads a good copy; it must not wait for ever."""
    copies = [shutil.copytree(dataset_folder, tmp_path / f"shop{n}") for n in range(2)]
    shard = next(copies[1].glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 4 : len(content) // 2] = os.urandom(len(content) // 2 - len(content) // 4)
    shard.write_bytes(content)
    started = begin([usual | {"dataset": copy, "packing": "true"} for copy in copies], devices=1, processes=2)
    told = [process.communicate(timeout=120)[1] for process in started]
    assert started[1].returncode == 2 and f"{shard.name} is unreadable" in told[1], told
    assert "prepare the dataset again" in told[1]
    assert started[0].returncode == 1 and "Another process of this run is gone" in told[0], told[0]


def local(flags, processes=2):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "launch.cluster.local", f"--processes={processes}", "--", *(f"--{k}={v}" for k, v in flags.items())]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_local_processes_are_stopped_together_and_saved(usual):
    process = local(usual)
    wait_for_steps(usual["workdir"], 3, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    step = json.loads(out.splitlines()[-1])["step"]
    assert f"step {step} is saved" in errors and (usual["workdir"] / "checkpoints" / str(step)).is_dir()
    assert pathlib.Path(f"{usual['workdir']}-process-1.log").exists()


def test_a_local_process_that_is_killed_ends_all_with_its_output(usual):
    process = local(usual)
    wait_for_steps(usual["workdir"], 3, lambda: process.poll() is None)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2 and "Process 1 of 2 ended with code -9" in errors and "process-1.log" in errors


def test_what_the_arguments_lack_is_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(local_lib.demo, "dataset", lambda: "demo-data")
    (tmp_path / "inner.cfg").write_text("# kept\n--workdir=inner\n--steps=3\n")
    (tmp_path / "outer.cfg").write_text(f"--flagfile={tmp_path / 'inner.cfg'}\n--mesh=data:2\n")
    complete, outer = local_lib.completed, f"--flagfile={tmp_path / 'outer.cfg'}"
    for given, workdir in (
        (["--dataset=D", "--workdir=W", "--noscan"], "W"), (["--steps", "3", "--workdir", "W", "--dataset", "D"], "W"),
        ([outer, "--source=S"], "inner"), ([outer, "--workdir=W", "--source=S"], "W"),
    ):  # fmt: skip
        assert complete(given) == (given, workdir)
    assert complete(["--steps=3"]) == (["--steps=3", "--workdir=runs/local", "--dataset=demo-data"], "runs/local")
    (tmp_path / "config.json").write_text("{}")  # a run that goes on has its dataset
    assert complete([f"--workdir={tmp_path}"]) == ([f"--workdir={tmp_path}"], str(tmp_path))
    for wrong in (["--workdir"], [f"--flagfile={tmp_path / 'none.cfg'}"]):
        with pytest.raises(UserError, match="workdir|none.cfg"):
            complete(wrong)


@pytest.mark.parametrize(
    "codes, who",
    [
        ([None, None], None), ([0, None], None), ([1, None], 0), ([None, -9], 1), ([1, -9], 1), ([-6, -9], 1), ([1, -6], 0), ([-6, 1], 1),
        ([2, 1], 0), ([1, 1], 0), ([-6, None], 0),
    ],
)  # fmt: skip
def test_who_followed_another_is_not_blamed(codes, who):
    """1 tells of another that is gone, -6 of the service that went with the first process."""
    assert local_lib.blamed(codes) == who


def test_the_first_death_is_blamed_whatever_follows():
    """The first fails on its own; the second is aborted for it, later."""
    ends = ["import sys; sys.exit(1)", "import os, time; time.sleep(1.5); os.abort()"]
    started = [subprocess.Popen([sys.executable, "-c", end]) for end in ends]
    assert local_lib.watch(started, [], 60.0) == 0 and started[1].returncode == -signal.SIGABRT


def test_processes_do_not_outlive_their_launcher(usual):
    process = local(usual | {"steps": 100_000, "save_every": 100_000, "eval_every": 100_000})
    wait_for_steps(usual["workdir"], 3, lambda: process.poll() is None)
    children = [int(n) for n in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    end = time.monotonic() + 120
    while any(pathlib.Path(f"/proc/{n}").exists() for n in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert len(children) == 2 and not any(pathlib.Path(f"/proc/{n}").exists() for n in children)
    assert any(p.name.isdigit() for p in (usual["workdir"] / "checkpoints").iterdir())  # they were told to end, and saved
    process.communicate()


def test_a_signal_before_the_first_step_is_not_lost(usual):
    """Between joining the others and the loop: nothing is to be saved yet, so all end at once."""
    process = local(usual | {"steps": 100_000, "save_every": 100_000, "eval_every": 100_000})
    end = time.monotonic() + 120
    while not (usual["workdir"] / "config.json").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    told = usual["workdir"] / "metrics.jsonl"
    assert not told.exists() or len(told.read_text().splitlines()) < 100


def test_work_of_one_process_is_done_by_the_first(monkeypatch, capsys):
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cluster.alone()
    assert ended.value.code == 0 and "process 1 of 2 has nothing to do" in capsys.readouterr().err
    monkeypatch.setenv("RGJAX_PROCESS", "0")
    cluster.alone()
    assert not cluster.several()


def test_a_mistake_is_told_by_the_process_that_is_shown(usual):
    _, errors = (process := local(usual | {"width": 33})).communicate(timeout=200)
    assert process.returncode == 2 and "--width=33" in errors and "ended with code 2" in errors
