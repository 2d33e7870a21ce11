"""The training step: token-weighted accumulation, the moving average, and the gradient of the mean over target tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from rgjax.config import OptimizerConfig
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.reason import sums
from rgjax.train import optimizer
from rgjax.train.state import TrainState, create
from rgjax.train.step import NOTHING_FIXED, _average, make_train_step

SGD = optax.sgd(1.0)
MESH = mesh_lib.make("data:1")


def state_of(made, tx, ema=False):
    tree = jax.tree.map(jnp.copy, tiny.params(made))  # the step consumes its state
    average = jax.tree.map(jnp.copy, tree) if ema else {}
    return TrainState(jnp.zeros((), jnp.int32), tree, tx.init(tree), average, jax.random.key_data(jax.random.key(1)))


def after(made, batch, accumulate, tx=SGD, **options):
    config = OptimizerConfig(accumulate=accumulate, **options)
    step = make_train_step(made, sums, tx, config)
    return step(state_of(made, tx, config.ema > 0), NOTHING_FIXED, sharding.put(batch, MESH, accumulate))


@pytest.fixture(scope="module")
def made():
    return tiny.factory("llama", layers=1)


def test_accumulation_equals_one_batch_with_ragged_token_counts(made):
    batch = tiny.training_batch(made, 8, 16)
    counts = batch["weights"].reshape(4, -1).sum(1)
    assert len(set(counts)) > 1, counts  # else the test would show nothing
    (one, metrics), (four, again) = after(made, batch, 1), after(made, batch, 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one.params, four.params)
    for name in metrics:
        assert float(metrics[name]) == pytest.approx(float(again[name]), rel=1e-4), name
    assert float(metrics["target_tokens"]) == batch["weights"].sum()


def test_a_step_follows_the_gradient_of_the_mean_over_target_tokens(made):
    batch, tree = tiny.training_batch(made, 3, 16), tiny.params(made)

    def mean_loss(p):
        head, shrink = made.model(p).head()
        logits = made.model(p)(batch) * shrink @ head.T
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
        return jnp.sum(nll * batch["weights"]) / batch["weights"].sum()

    value, grads = jax.jit(jax.value_and_grad(mean_loss))(tree)
    state, metrics = after(made, batch, 1)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.global_norm(grads)), rel=1e-4)
    jax.tree.map(lambda new, old, g: np.testing.assert_allclose(new, old - g, atol=1e-5), state.params, tree, grads)


def test_rows_without_target_tokens_do_not_count(made):
    batch = tiny.training_batch(made, 2, 16)
    empty = {k: np.concatenate([v, np.zeros_like(v)]) for k, v in batch.items()}
    (one, _), (two, _) = after(made, batch, 1), after(made, empty, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.params, two.params)


def test_moving_average_in_closed_form(made):
    config = OptimizerConfig(ema=0.3)
    step, state = make_train_step(made, sums, SGD, config), state_of(made, SGD, ema=True)
    batch = sharding.put(tiny.training_batch(made, 2, 16), MESH, 1)
    expected = np.asarray(state.params["embedding"]["tokens"])
    for n in range(4):
        state, _ = step(state, NOTHING_FIXED, batch)
        keep = min(0.3, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * np.asarray(state.params["embedding"]["tokens"])
        np.testing.assert_allclose(state.ema["embedding"]["tokens"], expected, atol=1e-5)
    assert int(state.step) == 4


def test_dropout_differs_by_step_and_micro_batch_and_repeats():
    made = tiny.factory("llama", layers=1, dropout=0.5)
    one = tiny.training_batch(made, 1, 16)
    batch = {k: np.concatenate([v, v]) for k, v in one.items()}
    freeze = optax.sgd(0.0)
    step = make_train_step(made, sums, freeze, OptimizerConfig(accumulate=2))
    placed, state, losses = sharding.put(batch, MESH, 2), state_of(made, freeze), []
    for _ in range(2):
        state, metrics = step(state, NOTHING_FIXED, placed)
        losses.append(float(metrics["loss"]))
    _, again = step(state_of(made, freeze), NOTHING_FIXED, placed)
    assert losses[0] != losses[1] and losses[0] == float(again["loss"])


def test_label_smoothing_is_for_training_only(made):
    batch = tiny.training_batch(made, 2, 16)
    run = jax.jit(lambda p, key: sums(made.model(p), batch, key, smoothing=0.3))
    trained, measured = run(tiny.params(made), jax.random.key(0)), run(tiny.params(made), None)
    assert float(measured["loss"]) == float(measured["nll"]) == pytest.approx(float(trained["nll"]), rel=1e-5)
    assert float(trained["loss"]) != pytest.approx(float(trained["nll"]), rel=1e-3)


def test_rdrop_makes_two_passes_in_training_and_one_in_evaluation():
    made = tiny.factory("llama", layers=1, dropout=0.3)
    batch, tree, key = tiny.training_batch(made, 2, 16), tiny.params(made), jax.random.key(5)
    run = jax.jit(lambda p, key, rdrop: sums(made.model(p), batch, key, rdrop=rdrop), static_argnums=2)
    first, second = (run(tree, one, 0.0) for one in jax.random.split(key))
    assert float(first["nll"]) != float(second["nll"])
    both, stronger = run(tree, key, 1e-9), run(tree, key, 2.0)
    assert float(both["loss"]) == pytest.approx(float(first["nll"] + second["nll"]), rel=1e-5)
    assert float(both["nll"]) == pytest.approx(float(first["nll"] + second["nll"]) / 2, rel=1e-5)
    assert float(both["correct"]) == pytest.approx(float(first["correct"] + second["correct"]) / 2)
    assert float(both["tokens"]) == batch["weights"].sum() and float(stronger["loss"]) > float(both["loss"]) * 1.001
    assert jax.tree.map(float, run(tree, None, 2.0)) == jax.tree.map(float, run(tree, None, 0.0))


def test_bfloat16_keeps_the_state_in_float32():
    made, config = tiny.factory("llama", layers=1, dtype="bfloat16"), OptimizerConfig()
    tx = optimizer.make(config, 10)
    state, _ = create(made, tx, MESH, True, 0)
    state, _ = make_train_step(made, sums, tx, config)(state, NOTHING_FIXED, sharding.put(tiny.training_batch(made, 2, 16), MESH, 1))
    for part in (state.params, state.opt_state, state.ema):
        assert {a.dtype for a in jax.tree.leaves(part) if jnp.issubdtype(a.dtype, jnp.floating)} <= {np.dtype("float32")}


def test_what_is_pruned_is_pruned_in_the_average_too():
    tree = lambda e, b: {"adapter": {"wq": {"e": jnp.array(e), "b": jnp.array(b)}}}
    before = TrainState(jnp.int32(90), {}, {}, tree([1.0, 2.0], [1.0, 2.0]), None)
    found = _average(before, tree([0.0, 4.0], [0.0, 4.0]), 0.5)["adapter"]["wq"]
    np.testing.assert_allclose(found["e"], [0.0, 3.0])
    np.testing.assert_allclose(found["b"], [0.5, 3.0])
