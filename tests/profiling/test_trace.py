"""Traces: no time counts twice, the table is of the traced steps, and launch.train traces those it is told to."""

import itertools
import json
import random

import jax
import jax.numpy as jnp
import launched
import pytest

from profiling import xplane
from rgjax.errors import UserError
from rgjax.train import profile


def test_own_times_cover_each_moment_once():
    """Brute force over nested intervals: each moment belongs to the innermost event around it."""
    rng, events = random.Random(3), []

    def grow(low: int, high: int, depth: int) -> None:
        cuts = sorted(rng.sample(range(low, high + 1), min(6, high + 1 - low)))
        for start, end in itertools.islice(zip(cuts, cuts[1:], strict=False), 0, None, 2):
            events.append((start, end - start, len(events)))
            if depth and end - start > 3:
                grow(start + 1, end - 1, depth - 1)

    grow(0, 2000, 4)
    rng.shuffle(events)
    expected = dict.fromkeys((what for _, _, what in events), 0)
    for moment in range(2000):
        around = [(length, -what, what) for start, length, what in events if start <= moment < start + length]
        if around:
            expected[min(around)[2]] += 1  # children are numbered after their parents
    found = {}
    for what, own in xplane.own_times(events):
        found[what] = found.get(what, 0) + own
    assert found == expected


def test_a_kernel_of_a_graph_is_told_as_its_operation_or_as_itself():
    """Names as a trace of an H200 had them (jax 0.11.2)."""
    assert xplane.named("loop_add_fusion.3", "loop_add_fusion_3") == "loop_add_fusion.3"
    assert xplane.named("command_buffer_402", "loop_add_fusion_3") == "loop_add_fusion.3"
    assert xplane.named("command_buffer_402", "input_add_reduce_fusion") == "input_add_reduce_fusion"
    assert xplane.named("command_buffer_1", "nvjet_sm90_tst_128x160_64x5_2x1_v_bz_TNT") == "nvjet_sm90_tst_128x160_64x5_2x1_v_bz_TNT"


def test_a_trace_holds_its_steps_and_each_operation_as_often_as_it_ran(tmp_path):
    step = jax.jit(lambda x: jnp.sin(x @ x))
    x = jax.block_until_ready(step(jnp.ones((64, 64))))
    trace = profile.Profile(range(2, 5), tmp_path, 0, lambda text: None)
    for number in range(1, 7):
        with trace.step(number):
            out = jax.block_until_ready(step(x))
        trace.after(number, out)
    found = xplane.read(xplane.newest(tmp_path), profile.STEP)
    assert [n for n, _ in found.steps] == [2, 3, 4]
    dots = [o for o in found.operations if o.name.startswith(("dot", "ynn", "sine"))]
    assert dots and all(o.runs == 3 for o in dots) and found.seconds > 0


@pytest.mark.parametrize(
    "begun, chosen, traced",
    [
        (0, "1:2", [1, 2]),  # the compiling step, asked for
        (3, "2:6", [5, 6]),  # resumed inside: the compiling step is left out
        (3, "4:5", [4, 5]),
        (8, "2:6", []),
        (0, "3:9", [3, 4, 5, 6, 7]),  # the run ends inside
        (0, "", []),
    ],
)
def test_which_steps_are_traced(begun, chosen, traced, tmp_path, monkeypatch):
    log = []
    monkeypatch.setattr(profile, "start", lambda folder: log.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: log.append("stop"))
    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", lambda name, step_num: log.append(step_num) or open(tmp_path / "x", "w"))
    notes, trace = [], profile.Profile(profile.steps(chosen), tmp_path, begun, lambda text: notes.append(text))
    for number in range(begun + 1, 8):
        with trace.step(number):
            pass
        trace.after(number, ())
    trace.close(7)
    assert log == (["start", *traced, "stop"] if traced else []) and len(notes) == bool(traced)


@pytest.mark.parametrize("text", ["5:3", "x", "0:4", "5", "1:2:3", "-1:4", "8:9"])
def test_ranges_that_mean_nothing_are_refused(text):
    with pytest.raises(UserError, match="--profile_steps"):
        profile.steps(text, of=7)


def test_a_run_is_traced_and_resumed_with_other_steps(start_training, tmp_path):
    workdir = tmp_path / "run"
    small = {"layers": 1, "steps": 4, "profile_steps": "2:3"}
    for steps, flags in ((4, small), (8, small | {"steps": 8, "profile_steps": "6:7"})):
        process = start_training(workdir, **flags)
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0 and json.loads(out.splitlines()[-1])["step"] == steps, errors
        first, last = flags["profile_steps"].split(":")
        assert f"traced steps {first} to {last} into {workdir}/profile" in errors
    shown = launched.run("profiling.trace", {"read": workdir / "profile"})
    told = json.loads(shown.stdout.splitlines()[-1])
    assert shown.returncode == 0 and told["steps"] == [6, 7], shown.stderr
    assert {"attention", "feed-forward"} <= set(told["modules"]) and sum(told["modules"].values()) == pytest.approx(1)
    assert len(list((workdir / "profile").rglob("*.xplane.pb"))) == 2


def test_the_command_traces_on_a_mesh(dataset_folder, tmp_path):
    """On two devices, where a step may give its state back placed otherwise than it got it."""
    small = "--layers=1 --width=32 --heads=4 --length=64 --target_length=32 --batch_size=4 --mesh=fsdp:2 --profile_steps=2:3".split()
    done = launched.run("profiling.trace", [*small, f"--dataset={dataset_folder}", f"--output={tmp_path}"], devices=2)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == [2, 3] and len(told["rounds"]) == 2 and min(told["rounds"]) > 0
    assert {"attention", "feed-forward", "head and loss", "optimizer"} <= set(told["modules"])
    once = [o for o in told["operations"] if o["operation"].startswith("all-gather")]
    assert once and all(o["runs"] % 4 == 0 for o in once)  # two steps on two devices
