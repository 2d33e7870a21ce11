"""profiling.replay points at the module where a nan was put, forwards or backwards; and does so for runs with adapters and penalties."""

import json
import math
import types

import jax
import jax.numpy as jnp
import launched
import pytest
import tiny

from profiling import replay
from rgjax import trees
from rgjax.errors import UserError
from rgjax.hf import export
from rgjax.parallel import mesh as mesh_lib
from rgjax.tasks.reason import sums
from rgjax.tasks.rerun import Step
from rgjax.train import workdir
from rgjax.train.step import NOTHING_FIXED, make_loss


def looked_at(made, params, loss=sums):
    step = types.SimpleNamespace(
        state=types.SimpleNamespace(params=params), fixed=NOTHING_FIXED, loss=make_loss(made, loss), key=lambda *_: jax.random.key(0)
    )
    return replay.looked_at(step, 1, tiny.training_batch(made, 2, 16), 0)


@pytest.fixture(scope="module")
def made():
    mesh_lib.make("data:1")
    return tiny.factory("llama", layers=3, scan=False)


def changed(params, path, change):
    return trees.nested([(p, change(leaf) if p == path else leaf) for p, leaf in trees.flat(params)])


def test_a_sound_batch_is_called_sound(made):
    found = looked_at(made, tiny.params(made))
    assert replay.verdict(found) == {"where": "nowhere", "module": ""}
    names = [p.module for p in found["probes"]]
    assert {"embedding", "decoder.block[2].mlp", "decoder.norm", "model"} <= set(names)
    assert all(p.reached for p in found["probes"] if p.module in ("embedding", "decoder.norm"))
    assert made.model.__func__ and not hasattr(type(made.model(tiny.params(made))).__call__, "__wrapped__")  # nothing stays patched


def test_a_weight_that_overflows_shows_in_the_module_that_multiplies_by_it(made):
    huge = changed(tiny.params(made), "decoder.blocks.mlp.w_out", lambda w: w.at[1].set(3e38))
    found = looked_at(made, huge)
    assert not found["parameters"] and replay.verdict(found) == {"where": "activations", "module": "decoder.block[1].mlp"}
    assert math.isfinite(next(p.value for p in found["probes"] if p.module == "decoder.block[0].mlp"))


def test_a_parameter_that_is_nan_is_named_itself(made):
    broken = changed(tiny.params(made), "decoder.blocks.attention.wq", lambda w: w.at[2, 0, 0].set(jnp.nan))
    assert replay.verdict(looked_at(made, broken)) == {"where": "parameters", "module": "decoder.blocks.attention.wq"}


def test_a_gradient_alone_is_traced_to_where_it_comes_from(made):
    def rooted(model, batch, key):
        found = sums(model, batch, key)
        return found | {"loss": found["loss"] + jnp.sqrt(0.0 * found["loss"])}

    first = replay.verdict(looked_at(made, tiny.params(made), rooted))
    assert first == {"where": "gradients", "module": "model", "behind": "loss"}


@pytest.mark.parametrize("task", ["behaviour", "bundle", "adversarial", "grpo"])
def test_runs_whose_steps_cannot_be_put_together_are_refused(task, tmp_path):
    sections = {name: cls(task=task) if name == "train" else cls() for name, cls in workdir.SECTIONS.items()}
    workdir.write(tmp_path, sections | {"dataset_fingerprint": "", "task": task})
    with pytest.raises(UserError, match=f"{tmp_path} is a run of --task={task}, and only steps of --task=reason can be rerun"):
        Step.open(str(tmp_path))


@pytest.mark.parametrize("more", [{"adapter": "lora", "rank": 2}, {"ewc": 10.0}], ids=["lora", "ewc"])
def test_a_run_that_stopped_is_rerun(more, tokenizer, dataset_folder, start_training, tmp_path):
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    export.write(tmp_path / "hf", tiny.params(made, noise=0.02), made.config, tokenizer)
    more |= {"ewc_data": dataset_folder, "ewc_examples": 4} if "ewc" in more else {}
    flags = {"init_from": tmp_path / "hf", "learning_rate": 1e32, "warmup_steps": 1, "save_every": 1, "nonfinite": "skip", "steps": 40}
    process = start_training(tmp_path / "run", **flags, **more)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "10 in a row" in errors, errors
    done = launched.run("profiling.replay", {"workdir": tmp_path / "run"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["first"]["where"] in ("activations", "loss", "gradients") and told["first"]["module"]
    assert told["checkpoint"] >= told["step"] - 1 and not told["not_finite"]["parameters"]


def test_a_run_without_a_checkpoint_is_rerun_on_what_it_began_with(tokenizer, start_training, tmp_path):
    made = tiny.factory("llama", tokenizer.vocab_size, width=32, head_dim=8, max_positions=256)
    huge = changed(tiny.params(made, noise=0.02), "decoder.blocks.mlp.w_out", lambda w: w.at[1].set(3e38))
    export.write(tmp_path / "hf", huge, made.config, tokenizer)
    taken, fresh = {"init_from": tmp_path / "hf"}, {"learning_rate": 1e32, "warmup_steps": 1}
    for name, flags, where in (("taken", taken, "activations"), ("fresh", fresh, "nowhere")):
        _, errors = (process := start_training(tmp_path / name, save_every=40, steps=40, **flags)).communicate(timeout=240)
        assert process.returncode == 2 and "profiling.replay" in errors and "start anew" in errors, errors
        done = launched.run("profiling.replay", {"workdir": tmp_path / name})
        assert done.returncode == 0 and "on the parameters that the run began with" in done.stdout, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["checkpoint"] == 0 and told["first"]["where"] == where
        if where == "nowhere":
            assert told["loss"] == pytest.approx(tiny.logged_losses(tmp_path / name)[1], rel=0.2)  # of another batch, before any step


def test_a_folder_that_holds_no_run_is_said_to_hold_none(tmp_path):
    done = launched.run("profiling.replay", {"workdir": tmp_path / "none"})
    assert done.returncode == 2 and "holds no run" in done.stderr
