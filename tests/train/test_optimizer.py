"""Schedules, the decay mask and AdamW in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax.config import OptimizerConfig
from rgjax.train import optimizer


def rates(steps, **options):
    follow = optimizer.schedule(OptimizerConfig(learning_rate=2.0, final_share=0.1, **options), steps)
    return [float(follow(i)) for i in range(steps + 1)]


@pytest.mark.parametrize("name", ["cosine", "wsd", "constant"])
def test_warm_up_is_linear_and_never_zero(name):
    found = rates(100, warmup_steps=4, schedule=name)
    start = 2.0 / 5
    assert found[:5] == pytest.approx([start + (2.0 - start) * i / 4 for i in range(5)])


def test_cosine_ends_at_the_final_share():
    found = rates(110, warmup_steps=10, schedule="cosine")
    for i in range(10, 111):
        expected = 0.2 + 1.8 * (1 + math.cos(math.pi * (i - 10) / 100)) / 2
        assert found[i] == pytest.approx(expected, rel=1e-5)


def test_wsd_is_flat_and_then_falls_in_a_line():
    found = rates(110, warmup_steps=10, schedule="wsd", decay_share=0.2)
    assert found[10:91] == pytest.approx([2.0] * 81)
    assert found[90:] == pytest.approx(list(np.linspace(2.0, 0.2, 21)))


def test_constant_stays_and_no_warm_up_starts_at_the_peak():
    assert rates(20, warmup_steps=0, schedule="constant") == pytest.approx([2.0] * 21)
    assert rates(20, warmup_steps=0, schedule="cosine")[0] == pytest.approx(2.0)
    assert max(rates(5, warmup_steps=50, schedule="cosine")) == pytest.approx(2.0)  # a run shorter than its warm-up


@pytest.mark.parametrize("family", ["gpt2", "t5", "qwen3"])
def test_only_matrices_decay(family):
    made = tiny.factory(family)
    mask = optimizer.decay_mask(tiny.params(made))
    decayed = {jax.tree_util.keystr(path) for path, yes in jax.tree_util.tree_leaves_with_path(mask) if yes}
    plain = {jax.tree_util.keystr(path) for path, yes in jax.tree_util.tree_leaves_with_path(mask) if not yes}
    matrices = ("wq", "wk", "wv", "wo", "w_in", "w_out", "w_gate", "tokens", "output")
    assert all(name.split("'")[-2] in matrices for name in decayed) and decayed
    assert not any(name.split("'")[-2] in matrices for name in plain) and plain


def test_two_steps_of_adamw_with_clipping():
    config = OptimizerConfig(
        learning_rate=0.1, warmup_steps=0, schedule="constant", weight_decay=0.5, beta1=0.8, beta2=0.9, clip=1.0
    )
    tx = optimizer.make(config, 10)
    params = {"w_in": jnp.array([[1.0, -2.0]]), "scale": jnp.array([3.0])}
    grads = {"w_in": jnp.array([[3.0, 0.0]]), "scale": jnp.array([4.0])}  # norm 5, clipped to 1
    state, m, v = tx.init(params), 0.0, 0.0
    w, s, ms, vs = 1.0, 3.0, 0.0, 0.0
    for n in (1, 2):
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        m, v, ms, vs = 0.8 * m + 0.2 * 0.6, 0.9 * v + 0.1 * 0.36, 0.8 * ms + 0.2 * 0.8, 0.9 * vs + 0.1 * 0.64
        step = lambda m, v, n=n: m / (1 - 0.8**n) / (math.sqrt(v / (1 - 0.9**n)) + 1e-8)
        w, s = w - 0.1 * (step(m, v) + 0.5 * w), s - 0.1 * step(ms, vs)
    assert float(params["w_in"][0, 0]) == pytest.approx(w, rel=1e-5)
    assert float(params["scale"][0]) == pytest.approx(s, rel=1e-5)
    assert float(params["w_in"][0, 1]) == pytest.approx(-2.0 * 0.95**2, rel=1e-5)  # no gradient: decay alone
