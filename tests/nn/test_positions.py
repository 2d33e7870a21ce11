"""Rotary positions as complex rotations and T5's buckets, by definition and against transformers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.nn import positions


def rotated(x, at, theta=10000.0):
    return np.asarray(positions.rotate(jnp.asarray(x, jnp.float32), positions.rotary(jnp.asarray(at), x.shape[-1], theta)))


def test_rotary_is_a_complex_rotation_of_each_half_split_pair():
    rng = np.random.default_rng(0)
    x, at, theta = rng.normal(size=(2, 3, 2, 8)), np.array([[0, 1, 7], [5, 90, 2]]), 500.0
    frequencies = theta ** (-np.arange(4) / 4)
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * at[:, :, None, None] * frequencies)
    np.testing.assert_allclose(rotated(x, at, theta), np.concatenate([turned.real, turned.imag], -1), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_scores_depend_on_the_distance_only(m, n, shift):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 1, 16))
    score = lambda a, b: (rotated(q, np.array([[a]])) * rotated(k, np.array([[b]]))).sum()
    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-3)
    assert np.linalg.norm(rotated(q, np.array([[m]]))) == pytest.approx(np.linalg.norm(q), rel=1e-5)


def test_causal_buckets_are_exact_up_close_and_shared_far_away():
    found = np.asarray(positions.relative_buckets(jnp.array([200]), jnp.arange(260), False, 32, 128))[0]
    by_distance = found[200::-1]
    assert (by_distance[:16] == np.arange(16)).all()
    assert (by_distance[128:] == 31).all() and (np.diff(by_distance) >= 0).all() and (np.diff(by_distance) <= 1).all()
    assert (found[200:] == 0).all()  # keys after the query, which the mask forbids


@pytest.mark.parity
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, distance", [(32, 128), (16, 40)])
def test_buckets_equal_transformers(bidirectional, buckets, distance):
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-300, 301)
    theirs = t5.T5Attention._relative_position_bucket(offsets, bidirectional, buckets, distance).numpy()
    ours = positions.relative_buckets(jnp.array([300]), jnp.arange(601), bidirectional, buckets, distance)[0]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parity
def test_rotary_equals_transformers():
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    rng = np.random.default_rng(1)
    q, at = rng.normal(size=(2, 5, 3, 8)).astype(np.float32), rng.integers(0, 100, (2, 5))
    angles = torch.tensor(at)[..., None].float() * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    theirs, _ = llama.apply_rotary_pos_emb(torch.tensor(q).transpose(1, 2), torch.tensor(q).transpose(1, 2), cos, sin)
    np.testing.assert_allclose(rotated(q, at), theirs.transpose(1, 2).numpy(), atol=1e-5)
