"""Elastic weight consolidation: the Fisher information against per-example gradients, the penalty in closed form, and its file."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from rgjax import trees
from rgjax.config import AdapterConfig, OptimizerConfig
from rgjax.errors import UserError
from rgjax.models.adapted import AdaptedFactory
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.reason import sums
from rgjax.train import adalora, ewc, optimizer
from rgjax.train.state import create
from rgjax.train.step import make_train_step
from rgjax.train.tuning import Tuning


@pytest.fixture(scope="module")
def made():
    return tiny.factory("llama", layers=1)


def one_by_one(batch):
    return [{name: jnp.asarray(values[i : i + 1]) for name, values in batch.items()} for i in range(len(batch["tokens"]))]


def log_likelihood(made, tree, row):
    model = made.model(tree)
    head, shrink = model.head()
    log_p = jax.nn.log_softmax(model(row) * shrink @ head.T)
    return jnp.sum(jnp.take_along_axis(log_p, row["targets"][..., None], -1)[..., 0] * row["weights"])


@pytest.mark.parametrize("frozen_part", ["embedding", "nothing"])
def test_fisher_is_the_mean_of_squared_gradients_of_single_examples(made, frozen_part):
    tree, rows = tiny.params(made), one_by_one(tiny.training_batch(made, 3, 16))
    own, frozen = trees.divide(tree, lambda path: not path.startswith(frozen_part))
    gradient = jax.jit(jax.grad(lambda tree, row: log_likelihood(made, tree, row)))
    squares = [jax.tree.map(jnp.square, gradient(tree, row)) for row in rows]
    expected = dict(trees.flat(jax.tree.map(lambda *each: sum(each) / len(each), *squares)))
    found = dict(trees.flat(ewc.fisher(made, sums, own, frozen, rows)))
    assert list(found) == [path for path, _ in trees.flat(own)]
    for path, values in found.items():
        np.testing.assert_allclose(values, expected[path], rtol=2e-3, atol=1e-5 * float(jnp.max(expected[path])), err_msg=path)


def test_penalty_and_gradient_in_closed_form():
    trained = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([[3.0]])}}
    held = {"fisher": {"a": jnp.array([1.0, 0.0]), "b": {"c": jnp.array([[2.0]])}}, "anchor": {"a": jnp.zeros(2), "b": {"c": jnp.array([[1.0]])}}}
    value, gradient = jax.value_and_grad(ewc.penalty(3.0))(trained, {"ewc": held})
    assert float(value) == 3 / 2 * (1 * 1**2 + 0 * 2**2 + 2 * 2**2)
    np.testing.assert_array_equal(gradient["a"], [3.0 * 1 * 1, 0.0])
    np.testing.assert_array_equal(gradient["b"]["c"], [[3.0 * 2 * 2]])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_adds_the_penalty_to_the_loss_per_token(made, accumulate):
    """With a gradient step of rate 1 the parameters move by the loss's gradient and by lambda F (theta - theta*)."""
    mesh, config, tx = mesh_lib.make("data:1"), OptimizerConfig(accumulate=accumulate), optax.sgd(1.0)
    batch = sharding.put(tiny.training_batch(made, 4, 16), mesh, accumulate)
    rng = np.random.default_rng(0)
    tree = tiny.params(made)
    held = {"fisher": jax.tree.map(lambda a: jnp.abs(a), tree), "anchor": jax.tree.map(lambda a: a - rng.normal(0, 0.1, a.shape), tree)}
    moved = {}
    for name, penalty in (("plain", None), ("held", ewc.penalty(0.5))):
        step = make_train_step(made, sums, tx, config, penalty)
        state, _ = create(made, tx, mesh, False, 0, jax.tree.map(jnp.copy, tree))
        moved[name], metrics = step(state, {"weights": {}, "ewc": held}, batch)
        if penalty:
            expected = float(penalty(tree, {"ewc": held}))
            assert float(metrics["penalty"]) == pytest.approx(expected, rel=1e-5)
            assert float(metrics["loss"]) == pytest.approx(float(metrics["nll"]) + expected, rel=1e-5)
    pull = jax.tree.map(lambda f, now, then: 0.5 * f * (now - then), held["fisher"], tree, held["anchor"])
    check = lambda a, b, p: np.testing.assert_allclose(a - p, b, atol=1e-5)
    jax.tree.map(check, moved["plain"].params, moved["held"].params, pull)


def test_it_stands_beside_the_penalty_of_adalora():
    config = AdapterConfig(adapter="adalora", initial_rank=3, rank=2)
    made = AdaptedFactory(tiny.factory("llama", layers=1), config)
    trained, fixed = {"adapter": made.fresh(jax.random.key(0))["adapter"]}, {}
    fixed["ewc"] = {"fisher": jax.tree.map(jnp.ones_like, trained), "anchor": jax.tree.map(jnp.zeros_like, trained)}
    both = Tuning(config, penalties=(adalora.orthogonality(config), ewc.penalty(2.0))).penalty(trained, fixed)
    squares = sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(trained))
    assert float(both) == pytest.approx(float(adalora.orthogonality(config)(trained, fixed)) + squares, rel=1e-5)
    assert Tuning(config).penalty is None


def test_what_is_kept_comes_back_bit_for_bit_and_is_refused_when_damaged(made, tmp_path):
    mesh = mesh_lib.make("data:1")
    state, _ = create(made, optimizer.make(OptimizerConfig(), 10), mesh, False, 0)
    found = {"fisher": jax.tree.map(jnp.square, state.params), "anchor": state.params}
    with pytest.raises(UserError, match=r"ewc\.safetensors is missing"):
        ewc.load(tmp_path, state.params)
    assert not ewc.exists(tmp_path)
    ewc.save(tmp_path, found, {"examples": "7"})
    assert ewc.exists(tmp_path) and [p.name for p in tmp_path.iterdir()] == [ewc.FILE]
    again = ewc.load(tmp_path, state.params)
    jax.tree.map(np.testing.assert_array_equal, again, found)
    arrays = load_file(tmp_path / ewc.FILE)
    name = min(arrays)
    save_file(arrays | {name: arrays[name][:1, :1]}, tmp_path / ewc.FILE)
    with pytest.raises(UserError, match="can't be read .*has shape"):
        ewc.load(tmp_path, state.params)
    (tmp_path / ewc.FILE).write_bytes(b"short")
    with pytest.raises(UserError, match="can't be read"):
        ewc.load(tmp_path, state.params)
