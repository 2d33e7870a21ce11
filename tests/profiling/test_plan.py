"""profiling.plan and profiling.collectives: bytes against closed forms, and groups of devices against how XLA writes them."""

import json
import os
import pathlib
import subprocess
import sys

import launched
import numpy as np
import pytest
from environment import ROOT

from profiling import collectives
from profiling.program import Program

LAYERS, ROWS, WIDTH, DEVICES = 5, 16, 24, 8

PROGRAMS = f"""
import pathlib, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_num_cpu_devices", {DEVICES})
mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
held, rows = NamedSharding(mesh, P(None, "fsdp", None)), NamedSharding(mesh, P(("data", "fsdp"), None))

def fsdp(w_LDD, x_BD):  # weights are gathered layer by layer, and each device keeps its part of their gradients' sum
    def body(x_BD, w_DD):
        return jnp.tanh(x_BD @ jax.lax.all_gather(w_DD, "fsdp", tiled=True)), None
    loss = lambda w_LDD: jnp.sum(jax.lax.scan(body, x_BD, w_LDD)[0])
    return jax.lax.psum(jax.grad(loss)(w_LDD), "data")

def others(x_BD):
    y_BD = jax.lax.all_to_all(x_BD, "data", 1, 0, tiled=True)
    return jax.lax.ppermute(x_BD, "fsdp", [(0, 1), (1, 2), (2, 3), (3, 0)]) + jnp.sum(y_BD)

w = jax.ShapeDtypeStruct(({LAYERS}, {WIDTH}, {WIDTH}), jnp.float32, sharding=held)
x = jax.ShapeDtypeStruct(({ROWS}, {WIDTH}), jnp.float32, sharding=rows)
spec = P(("data", "fsdp"), None)
one = jax.shard_map(fsdp, mesh=mesh, in_specs=(P(None, "fsdp", None), spec), out_specs=P(None, "fsdp", None), check_vma=False)
two = jax.shard_map(others, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
for name, lowered in (("fsdp", jax.jit(one).lower(w, x)), ("others", jax.jit(two).lower(x))):
    pathlib.Path(sys.argv[1], name).write_text(lowered.compile().as_text())
"""


def run(*command, **env) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, Program]:
    folder = tmp_path_factory.mktemp("hlo")
    run("-c", PROGRAMS, str(folder))
    return {path.name: Program(path.read_text()) for path in pathlib.Path(folder).iterdir()}


def rows_of(program: Program) -> dict[tuple[str, str], tuple]:
    found = collectives.by_kind(list(collectives.found(program, DEVICES)), {"data": 2, "fsdp": 4})
    return {(row["kind"], row["axes"]): (row["count"], row["bytes"], row["sent"]) for row in found}


def test_weights_that_are_gathered_in_a_loop(programs):
    """All of them are gathered once forwards (backwards keeps them), their gradients are scattered over fsdp and summed over data."""
    found, weights = rows_of(programs["fsdp"]), LAYERS * WIDTH * WIDTH * 4
    assert found["all-gather", "fsdp"] == (LAYERS, weights, weights * 3 / 4)
    assert found["reduce-scatter", "fsdp"] == (LAYERS, weights, weights * 3 / 4)
    assert found["all-reduce", "data"] == (1, weights / 4, 2 * weights / 4 / 2)
    assert len(found) == 3


def test_other_kinds(programs):
    found, own = rows_of(programs["others"]), ROWS * WIDTH * 4 / DEVICES
    assert found["all-to-all", "data"] == (1, own, own / 2)
    assert found["collective-permute", "fsdp"] == (1, own, own)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{0,4},{1,5},{2,6},{3,7}}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("{}", [list(range(8))]),
        ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ],
)
def test_groups_are_read_as_xla_writes_them(text, expected):
    found = collectives.groups(f", channel_id=1, replica_groups={text}, use_global_device_ids=true", 8)
    assert sorted(sorted(g) for g in found.tolist()) == expected


def test_what_a_ring_sends_is_what_it_must():
    """Brute force: a ring's all-gather in which each device passes on, n - 1 times, the part that it got last."""
    n, part = 6, 100
    sent = np.zeros(n)
    for _ in range(n - 1):
        sent += part
    assert collectives.Collective("all-gather", 1, n * part, tuple(range(n))).sent == sent[0]
    assert collectives.Collective("all-reduce", 1, n * part, tuple(range(n))).sent == 2 * sent[0]


SMALL = {"layers": 2, "width": 32, "heads": 4, "mlp_width": 48, "length": 32, "target_length": 16, "batch_size": 16, "tied": False, "scan": False}


def plan(**flags) -> dict:
    done = launched.run("profiling.plan", SMALL | {"vocab_size": 96} | flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("length", (32, 160))  # one and five pieces of the loss
def test_data_parallel_sums_each_gradient_once(length):
    """All gradients, float32, and a few scalars; nothing else goes between devices, and memory holds parameters and two moments whole."""
    d, v, f = 32, 96, 48
    parameters = 2 * v * d + 2 * (4 * d * d + 3 * d * f + 2 * d) + d
    told = plan(mesh="data:8", length=length)
    (mesh,) = told["meshes"]
    (row,) = mesh["collectives"]
    assert (row["kind"], row["axes"]) == ("all-reduce", "data") and told["best"] == "data:8"
    assert 4 * parameters <= row["bytes"] <= 4 * parameters + 64 and row["sent"] == pytest.approx(2 * row["bytes"] * 7 / 8)
    assert mesh["memory"]["arguments"] == pytest.approx(12 * parameters, rel=0.06)  # and the batch
    assert mesh["communication_seconds"] == pytest.approx(row["sent"] / 450e9)


@pytest.mark.parametrize("mesh, positions", [("fsdp:8", "rotary"), ("data:2,fsdp:4", "rotary"), ("data:2,fsdp:4", "learned")])
def test_fsdp_sends_parameters_and_nothing_of_a_batch(mesh, positions):
    """What goes between devices does not grow with the batch; one that does not divide is raised."""
    few, many = (plan(mesh=mesh, positions=positions, **more) for more in ({}, {"batch_size": 60}))
    assert (few["batch_size"], many["batch_size"]) == (16, 64)
    size = [sum(r["bytes"] for r in told["meshes"][0]["collectives"]) for told in (few, many)]
    assert size[0] == size[1] > 0


def test_meshes_are_compared_and_one_machine_is_left():
    told = plan(mesh="auto", layers=1, devices=4, devices_per_node=1, network=1e-3, bandwidth=450)
    names = {m["mesh"] for m in told["meshes"]}
    assert names == {"data:4", "fsdp:4", "data:2,fsdp:2"}  # a machine of one device has no room for tensor
    fits = [m for m in told["meshes"] if m["fits"]]
    assert told["best"] == min(fits, key=lambda m: m["step_seconds"])["mesh"] and len(fits) == 3
    work = [m["flops"] for m in told["meshes"]]
    assert max(work) < 1.3 * min(work)
    slow = sum(r["sent"] for m in told["meshes"] if m["mesh"] == "data:4" for r in m["collectives"])
    assert next(m for m in told["meshes"] if m["mesh"] == "data:4")["communication_seconds"] == pytest.approx(slow / 1e6)


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"mesh": "auto", "batch_size": 7}, "divides over no mesh of 8"),
        ({"mesh": "data:-1,fsdp:3"}, "--devices=8"),
        ({"mesh": "data:2", "init_from": "x"}, "--init_from can't be looked at"),
    ],
)
def test_what_means_nothing_is_refused(flags, words):
    done = launched.run("profiling.plan", SMALL | flags)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("error:") == 1
