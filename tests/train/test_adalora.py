"""AdaLoRA's budget against its formula and, with torch, against PEFT's own allocator."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.train import adalora

CONFIG = AdapterConfig(adapter="adalora", rank=2, initial_rank=4, budget_start=3, budget_end=6, budget_every=2)
STEPS = 20


def adapter(seed: int) -> dict:
    """Two matrices of two layers."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(0, 1, shape), jnp.float32)
    one = lambda: {"a": draw(2, 6, 4), "b": draw(2, 4, 5), "e": draw(2, 4)}
    return {"adapter": {"decoder": {"wq": one(), "wv": one()}}}


def test_the_budget_falls_along_a_cube():
    total, target, found = 16, 8, []
    for step in range(1, STEPS + 1):
        budget, due = adalora.schedule(jnp.int32(step), total, target, (3, 6, STEPS), 2)
        found.append((int(budget), bool(due)))
        if step <= 3:
            expected = (16, False)
        elif step > 14:
            expected = (8, True)
        else:
            expected = (int(8 * (1 - (step - 3) / 11) ** 3 + 8), step % 2 == 0)
        assert found[-1] == expected
    assert found[0] == (16, False) and found[-1] == (8, True)


def test_the_least_important_triplets_lose_their_singular_value():
    tx = adalora.allocating(optax.sgd(0.01), CONFIG, STEPS)
    params, update = adapter(0), jax.jit(lambda g, s, p: tx.update(g, s, p))
    state = tx.init(params)
    for step in range(STEPS):
        grads = adapter(step + 1)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    values = [np.asarray(leaf) for path, leaf in trees.flat(params) if path.endswith(".e")]
    assert sum(np.count_nonzero(e) for e in values) == 8
    scores = adalora.importance(jax.tree.map(jnp.multiply, state.sensitivity, state.uncertainty)["adapter"])
    kept = np.concatenate([np.asarray(scores[p]).ravel() for p in scores])
    alive = np.concatenate([np.asarray(trees.at(params, f"adapter.{p}.e")).ravel() != 0 for p in scores])
    assert kept[alive].min() > kept[~alive].max()


def test_orthogonality_in_closed_form():
    params = adapter(0)
    away = []
    for path, x in trees.flat(params["adapter"]):
        for layer in np.asarray(x, np.float64):
            if path.endswith(".a"):
                away.append(np.linalg.norm(layer.T @ layer - np.eye(4)))
            elif path.endswith(".b"):
                away.append(np.linalg.norm(layer @ layer.T - np.eye(4)))
    assert float(adalora.orthogonality(CONFIG)(params, {})) == pytest.approx(0.5 * np.mean(away), rel=1e-5)


def test_stages_that_leave_no_room_are_refused():
    with pytest.raises(UserError, match="--budget_start=3"):
        adalora.allocating(optax.sgd(0.1), CONFIG, 9)


@pytest.mark.parity
def test_allocation_is_that_of_peft():
    torch = pytest.importorskip("torch")
    layer = pytest.importorskip("peft.tuners.adalora.layer")
    names = {"a": "lora_A", "b": "lora_B", "e": "lora_E"}
    params, rate = adapter(0), 0.01

    def theirs(tree) -> dict:
        """Per layer and matrix, in PEFT's layout."""
        found = {}
        for path, x in trees.flat(tree["adapter"]):
            matrix, name = path.rsplit(".", 1)
            for i, one in enumerate(np.asarray(x)):
                found[f"{matrix}.{i}.{names[name]}.default"] = torch.tensor(one[:, None] if name == "e" else one.T)
        return found

    held = {name: torch.nn.Parameter(value.clone()) for name, value in theirs(params).items()}
    model = types.SimpleNamespace(named_parameters=lambda: held.items())
    wanted = types.SimpleNamespace(beta1=0.85, beta2=0.85, target_r=2, tinit=3, tfinal=6, deltaT=2, total_step=STEPS)
    allocator = layer.RankAllocator(model, wanted, "default")
    tx = adalora.allocating(optax.sgd(rate), CONFIG, STEPS)
    state, update = tx.init(params), jax.jit(lambda g, s, p: tx.update(g, s, p))
    for step in range(1, STEPS + 1):
        grads = adapter(100 + step)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, gradient in theirs(grads).items():
            held[name].grad = gradient
            with torch.no_grad():
                held[name] -= rate * gradient
        allocator.update_and_allocate(model, step)
        for name, value in theirs(params).items():
            np.testing.assert_allclose(held[name].detach().numpy(), value.numpy(), atol=1e-5, err_msg=f"step {step}, {name}")
