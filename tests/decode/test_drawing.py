"""Drawing in proportion to weights, against the cumulative sum written out in float64."""

import hypothesis
import hypothesis.extra.numpy as numpy_strategies
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rgjax.decode.drawing import PART, drawn, drawn_of_likeliest


@hypothesis.given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.floats(0, 0.95))
@hypothesis.settings(max_examples=40, deadline=None)
def test_it_inverts_the_cumulative_distribution(size, seed, empty):
    rng = np.random.default_rng(seed)
    weights = (rng.random((64, size)) ** 3 * (rng.random((64, size)) >= empty)).astype(np.float32)
    weights[np.arange(64), rng.integers(0, size, 64)] += 0.1
    uniform = rng.random(64).astype(np.float32)
    found = np.asarray(drawn(jnp.asarray(weights), jnp.asarray(uniform)))
    mass = np.cumsum(weights.astype(float), axis=1)
    share = mass / mass[:, -1:]
    for row, token in enumerate(found):  # the token whose stretch of the unit interval holds the number, but for rounding at its ends
        before = share[row, token - 1] if token else 0.0
        assert weights[row, token] > 0
        assert before - 1e-5 <= uniform[row] <= share[row, token] + 1e-5


@hypothesis.given(numpy_strategies.arrays(np.float32, (3, 130), elements=st.sampled_from([0.0, 1e-30, 1.0, 1e30])))
@hypothesis.settings(max_examples=30, deadline=None)
def test_a_weight_of_nothing_is_never_drawn(weights):
    weights[:, 77] = 1.0
    for uniform in (0.0, 0.5, np.float32(1 - 2**-24)):
        found = np.asarray(drawn(jnp.asarray(weights), jnp.full(3, uniform, jnp.float32)))
        assert (weights[np.arange(3), found] > 0).all()


def sorted_cut(p: np.ndarray, top_p: float) -> np.ndarray:
    """One row's distribution once it is sorted and cut, float64, by hand; ties with the last that stays stay."""
    order = np.argsort(-p)
    last = p[order[np.searchsorted(np.cumsum(p[order]), top_p)]]
    return np.where(p >= last, p, 0.0) / p[p >= last].sum()


def test_rounded_sums_over_a_large_vocabulary_draw_no_weight_of_nothing():
    """Cumulative sums in float32 are not monotone over hundreds of parts: numbers at every step of theirs, where most parts are empty."""
    rng, size = np.random.default_rng(0), 50_257
    weights = np.zeros((16, size), np.float32)
    for row in weights:
        row[rng.choice(size, 50, replace=False)] = rng.random(50) ** 4
    weights /= weights.sum(1, keepdims=True)
    parts = jnp.sum(jnp.pad(jnp.asarray(weights), ((0, 0), (0, -size % PART))).reshape(16, -1, PART), axis=-1)
    mass, draw = np.asarray(jnp.cumsum(parts, axis=-1)), jax.jit(drawn)
    for step in range(0, mass.shape[1], 4):
        uniform = np.minimum(mass[:, step] / mass[:, -1], np.float32(1 - 2**-24))
        found = np.asarray(draw(jnp.asarray(weights), jnp.asarray(uniform)))
        assert (weights[np.arange(16), found] > 0).all()


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("size, spread", [(3, 0.5), (130, 2.0)])
def test_draws_of_the_likeliest_follow_the_sorted_and_cut_distribution(size, spread, top_p):
    draws = 40_000
    p = np.asarray(jax.nn.softmax(jnp.asarray(np.random.default_rng(size).normal(0, spread, size))), float)
    keys = jax.random.split(jax.random.key(3), draws)
    found = np.asarray(jax.jit(drawn_of_likeliest, static_argnums=1)(jnp.tile(jnp.asarray(p, jnp.float32), (draws, 1)), top_p, keys))
    expected = sorted_cut(p, top_p)
    counts = np.bincount(found, minlength=size)
    assert not counts[expected == 0].any()
    rare = expected * draws < 5  # counted together
    seen, due = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected * draws))
    assert abs(seen - due).max() < 1 if len(due) == 2 else stats.chisquare(seen[due > 0], due[due > 0]).pvalue > 1e-3


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.9, 0.999]), st.floats(0.1, 20), st.booleans())
@hypothesis.settings(max_examples=30, deadline=None)
def test_what_is_drawn_is_among_the_likeliest(seed, top_p, spread, masked):
    logits = np.random.default_rng(seed).normal(0, spread, (64, 65)).astype(np.float32)
    logits[:, 1 if masked else 65 :] = -np.inf
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))
    keys = jax.random.split(jax.random.key(seed % 1000), 64)
    found = np.asarray(drawn_of_likeliest(jnp.asarray(p), top_p, keys))
    for row, token in zip(p.astype(float), found, strict=True):
        assert row[token] > 0 and row[row > row[token]].sum() < top_p + 1e-6


def test_ties_at_the_end_stay_and_what_is_no_number_ends():
    p = jnp.array([[0.5, 0.2, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [jnp.nan] * 4])
    found = np.asarray(drawn_of_likeliest(jnp.repeat(p, 60, axis=0), 0.6, jax.random.split(jax.random.key(0), 240))).reshape(4, 60)
    assert [set(row) for row in found[:3].tolist()] == [{0, 1, 2}, {0, 1, 2, 3}, {0}]
