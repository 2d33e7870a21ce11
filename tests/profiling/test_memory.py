"""profiling.memory: bytes against closed forms, and the search for the largest batch against counting."""

import json
import random
import types

import jax
import jax.numpy as jnp
import launched
import pytest

from profiling import footprint
from profiling.workload import Workload
from rgjax.errors import UserError
from rgjax.train.workdir import SECTIONS


@pytest.mark.parametrize("seed", range(40))
def test_the_largest_batch_is_that_which_counting_finds(seed):
    rng = random.Random(seed)
    base, slope, bend, unit, most = rng.uniform(0, 100), rng.uniform(0.01, 10), rng.choice([0, 0.1, 1]), rng.randint(1, 9), rng.randint(1, 3000)
    limit = rng.uniform(1, 10) ** rng.randint(1, 4)
    need = lambda rows: int(base + slope * rows + bend * rows**1.3 + 50 * (rows > 100))
    found, seen = footprint.largest(need, unit, limit, most, rng.randint(0, 20))
    assert found == max((rows for rows in range(unit, most + 1, unit) if need(rows) <= limit), default=0)
    assert seen == {rows: need(rows) for rows in seen} and len(seen) <= 15


def test_activations_are_what_the_backward_pass_reads():
    """Of sum(sin(x w)) it reads x, which the step is given, and cos(x w)."""
    place = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec(None, None, None))
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32, sharding=place)
    work = types.SimpleNamespace(
        abstract=lambda: (types.SimpleNamespace(params={"w": shape(12, 20, 1)}), {"weights": {}}, {"x": shape(1, 6, 12)}),
        factory=types.SimpleNamespace(model=lambda params: params["w"][..., 0]),
        loss=lambda w, batch, key: {"loss": jnp.sum(jnp.sin(batch["x"] @ w)), "tokens": jnp.float32(1)},
        tuning=types.SimpleNamespace(penalty=None),
    )
    assert footprint.activations(work) == 4 * 6 * 20


def run(dataset, *flags):
    small = "--layers=2 --width=32 --heads=4 --mlp_width=48 --length=96 --target_length=32 --batch_size=4 --scan=true --attention=plain".split()
    return launched.run("profiling.memory", [*small, f"--dataset={dataset}", *flags])


def test_figures_of_a_small_model(dataset_folder):
    done = run(dataset_folder, "--memory=1", "--most_rows=8", "--policies=none,full")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    d, f, v, layers = 32, 48, 600, 2  # XLA undoes a loop over one layer, and computes nothing again in it
    parameters = v * d + layers * (4 * d * d + 3 * d * f + 2 * d) + d
    assert told["bytes"]["parameters"] == 4 * parameters
    assert 8 * parameters < told["bytes"]["optimizer"] < 8 * parameters + 64  # two moments and counters
    batch = 4 * 4 * (5 * 96 + 96 // 16)  # 4 rows of five arrays of 96 whole numbers, and lengths of an example for every 16 positions
    assert told["bytes"]["batch"] == batch
    assert told["bytes"]["arguments"] == pytest.approx(12 * parameters + batch, rel=0.01)
    none, full = told["remat"]["none"], told["remat"]["full"]
    assert full["activations"] < none["activations"] / 2 and full["flops"] > 1.1 * none["flops"]
    assert told["largest_batch_size"] == 8 and set(told["peak_by_rows"]) == {"4", "8"} and told["limit"] == 2**30


@pytest.mark.parametrize("task", ["adversarial", "grpo", "bundle"])
def test_steps_that_are_not_built_are_refused(task):
    with pytest.raises(UserError, match=f"--task={task} has steps that are not looked at"):
        Workload.open({name: cls(task=task) if name == "train" else cls() for name, cls in SECTIONS.items()}, 600)


def test_rewarded_steps_are_refused_with_their_flagfile(dataset_folder):
    done = run(dataset_folder, "--flagfile=configs/reason_grpo.cfg")
    assert done.returncode == 2 and "--task=grpo" in done.stderr and not done.stdout, done.stderr


def test_a_policy_that_is_none_is_refused(dataset_folder):
    done = run(dataset_folder, "--policies=none,all")
    assert done.returncode == 2 and "--policies has 'all'" in done.stderr
