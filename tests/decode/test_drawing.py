"""Drawing in proportion to weights, against the cumulative sum written out in float64."""

import hypothesis
import hypothesis.extra.numpy as numpy_strategies
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from rgjax.decode.drawing import drawn, nucleus


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


@hypothesis.given(st.sampled_from([2, 65, 300]), st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.9, 0.999]), st.floats(0.1, 20), st.booleans())
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_nucleus_is_the_least_set_of_the_likeliest_that_has_the_mass(size, seed, top_p, spread, masked):
    logits = np.random.default_rng(seed).normal(0, spread, (8, size)).astype(np.float32)
    logits[:, 1 if masked else size :] = -np.inf
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))
    for row, kept in zip(p.astype(float), np.asarray(nucleus(jnp.asarray(p), top_p)), strict=True):
        stays = kept > 0
        assert (kept[stays] == row[stays]).all() and row[stays].min() >= row[~stays].max(initial=0.0)
        assert row[stays].sum() >= top_p - 1e-6 and row[stays].sum() - row[stays].min() < top_p + 1e-6  # but for rounding


def test_ties_at_the_end_of_the_nucleus_stay():
    p = jnp.array([[0.5, 0.2, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(nucleus(p, 0.6) > 0, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
