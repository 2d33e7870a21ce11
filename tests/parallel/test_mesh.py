"""The mesh flag, the sharding rules, and eight fake devices against one."""

import json

import jax
import numpy as np
import pytest
import tiny

from rgjax.config import OptimizerConfig
from rgjax.errors import UserError
from rgjax.parallel import mesh, sharding
from rgjax.train import optimizer
from rgjax.train.state import abstract_state


def test_the_flag_is_parsed():
    assert mesh.parse("data:2,fsdp:3") == {"data": 2, "fsdp": 3, "tensor": 1}
    assert mesh.parse("") == {"data": 1, "fsdp": 1, "tensor": 1}
    assert mesh.parse("tensor:-1")["tensor"] == -1


@pytest.mark.parametrize("text", ["model:2", "data", "data:", "data:0", "data:-2", "data:x", "data:2;fsdp:2", "data:1.5"])
def test_what_is_not_understood_is_named(text):
    with pytest.raises(UserError, match="--mesh=.*axes data, fsdp, tensor"):
        mesh.parse(text)


def test_too_many_devices_or_two_free_axes_are_refused():
    with pytest.raises(UserError, match="takes 4096 devices"):
        mesh.make("data:4096")
    with pytest.raises(UserError, match="two axes free"):
        mesh.make("data:-1,fsdp:-1")
    assert mesh.make("data:-1").shape["data"] == jax.device_count()


def test_rows_must_divide_among_devices_and_micro_batches():
    sharding.check_batch(8, mesh.make("data:1"), 4)
    with pytest.raises(UserError, match="--batch_size=6 does not divide by 4"):
        sharding.check_batch(6, mesh.make("data:1"), 4)


@pytest.mark.parametrize("together", [1, 2])
def test_micro_batches_hold_the_same_rows_among_any_number_of_processes(together):
    """What belongs together stays so: pairs of rows, three texts for each row, and nothing of an array without width."""
    number = np.arange(24)
    rows = {"tokens": number[:, None] + np.zeros((1, 4), int), "texts": np.repeat(number, 3), "query": np.zeros((24, 0))}
    whole = sharding.micro_batches(rows, 3, together)
    assert whole["tokens"].shape == (3, 8, 4) and whole["query"].shape == (3, 8, 0)
    assert sorted(whole["tokens"][:, :, 0].ravel()) == list(number)
    assert (whole["texts"].reshape(3, 8, 3) == whole["tokens"][:, :, :3]).all()
    assert (whole["tokens"][:, ::together, 0] % together == 0).all() and (np.diff(whole["tokens"][..., 0].reshape(-1, together)) == 1).all()
    for processes in (2, 4):
        parts = [sharding.micro_batches({n: np.split(x, processes)[p] for n, x in rows.items()}, 3, together) for p in range(processes)]
        for name, found in whole.items():
            assert (np.concatenate([part[name] for part in parts], axis=1) == found).all()
    placed = sharding.put(rows, mesh.make("data:1"), 3, together)
    assert all((np.asarray(placed[name]) == found).all() for name, found in whole.items())


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "t5"])
def test_moments_live_where_their_parameters_live(family):
    abstract = jax.sharding.AbstractMesh((1, 2, 2), mesh.AXES)
    made = tiny.factory(family)
    state = abstract_state(made, optimizer.make(OptimizerConfig(), 10), abstract, True, 0)
    specs = lambda tree: [str(leaf.sharding.spec) for leaf in jax.tree.leaves(tree)]
    adam = state.opt_state[1][0]
    assert specs(adam.mu) == specs(adam.nu) == specs(state.ema) == specs(state.params)
    spread = [s for s in specs(state.params) if "fsdp" in s and "tensor" in s]
    assert len(spread) >= 5, specs(state.params)


def test_eight_devices_train_like_one(start_training, unbroken_run, tmp_path):
    process = start_training(tmp_path / "eight", devices=8, mesh="data:2,fsdp:2,tensor:2")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(out.splitlines()[-1])["finished"]
    found, expected = tiny.logged_losses(tmp_path / "eight"), tiny.logged_losses(unbroken_run)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_mesh_without_devices_is_one_sentence(start_training, tmp_path):
    process = start_training(tmp_path / "none", mesh="data:64")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "error: --mesh=data:64 takes 64 devices" in errors and "Traceback" not in errors
