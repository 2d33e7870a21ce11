"""The chunked cross entropy against optax on all logits at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.train import loss
from rgjax.train.loss import cross_entropy_sums, rdrop_sums


def naive(hidden, head, targets, weights, shrink, smoothing):
    logits = hidden * shrink @ head.T
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    smooth = optax.smooth_labels(jax.nn.one_hot(targets, head.shape[0]), smoothing)
    right = jnp.argmax(logits, -1) == targets
    return tuple(jnp.sum(x * weights) for x in (optax.softmax_cross_entropy(logits, smooth), nll, right, jnp.ones_like(nll)))


@functools.cache
def compiled(function, shrink, smoothing):
    def both(hidden, head, targets, weights):
        sums = function(hidden, head, targets, weights, shrink, smoothing)
        return sums[0], sums

    return jax.jit(jax.value_and_grad(both, argnums=(0, 1), has_aux=True))


def case(seed, b, t, share, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    hidden, head = rng.normal(size=(b, t, 6)), rng.normal(size=(11, 6))
    weights = rng.random((b, t)) * (rng.random((b, t)) < share)
    return (
        jnp.asarray(hidden, dtype),
        jnp.asarray(head, jnp.float32),
        jnp.asarray(rng.integers(0, 11, (b, t))),
        jnp.asarray(weights, jnp.float32),
    )


def check(arrays, shrink, smoothing):
    (_, ours), grads = compiled(cross_entropy_sums, shrink, smoothing)(*arrays)
    (_, theirs), expected = compiled(naive, shrink, smoothing)(*arrays)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    for a, b in zip(grads, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 999),
    st.sampled_from([(1, 7), (2, 33), (2, 80)]),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.just(0.2),
)
def test_sums_and_gradients_equal_optax(seed, shape, share, smoothing):
    check(case(seed, *shape, share), 0.5, smoothing)


@pytest.mark.parametrize("length", [31, 32, 33, 64])
def test_chunk_boundaries(length):
    arrays = case(length, 2, length, 1.0)
    check(arrays, 1.0, 0.1)
    last_only = jnp.zeros((2, length)).at[:, -1].set(1.0)
    check((*arrays[:3], last_only), 1.0, 0.0)


def test_the_chunk_size_does_not_matter(monkeypatch):
    arrays = case(0, 2, 20, 0.7)
    whole = cross_entropy_sums(*arrays, 1.0, 0.1)
    monkeypatch.setattr(loss, "CHUNK", 3)
    np.testing.assert_allclose(cross_entropy_sums(*arrays, 1.0, 0.1), whole, rtol=1e-5)


def test_no_target_token_is_no_loss_and_no_gradient():
    (value, sums), grads = compiled(cross_entropy_sums, 1.0, 0.0)(*case(0, 2, 40, 0.0))
    assert float(value) == 0 and all(float(s) == 0 for s in sums)
    assert all((np.asarray(g) == 0).all() for g in grads)


def test_half_precision_hidden_states_sum_in_float32():
    sums = cross_entropy_sums(*case(0, 4, 64, 1.0, jnp.bfloat16))
    exact = naive(*case(0, 4, 64, 1.0), 1.0, 0.0)
    assert all(s.dtype == jnp.float32 for s in sums)
    np.testing.assert_allclose(sums[0], exact[0], rtol=5e-3)


def naive_rdrop(hidden, other, head, targets, weights, alpha, shrink, smoothing):
    """The paper's loss on all logits at once, from probabilities."""
    logits, losses = [x * shrink @ head.T for x in (hidden, other)], []
    p, q = (jax.nn.softmax(x) for x in logits)
    for x in logits:
        losses.append(naive(x, jnp.eye(head.shape[0]), targets, weights, 1.0, smoothing))
    kl = lambda a, b: jnp.sum(a * jnp.log(a / b), axis=-1)
    loss = losses[0][0] + losses[1][0] + alpha * 0.5 * jnp.sum((kl(p, q) + kl(q, p)) * weights)
    return loss, (losses[0][1] + losses[1][1]) / 2, (losses[0][2] + losses[1][2]) / 2, losses[0][3]


@pytest.mark.parametrize("alpha, smoothing, share, length", [(0.7, 0.0, 0.5, 20), (5.0, 0.2, 0.3, 70), (1.0, 0.0, 1.0, 33), (1.0, 0.1, 0.0, 40)])
def test_rdrop_is_the_dense_closed_form_in_value_and_gradient(alpha, smoothing, share, length):
    hidden, head, targets, weights = case(3, 2, length, share)
    other = hidden + 0.3 * case(4, 2, length, share)[0]
    found = []
    for function in (rdrop_sums, naive_rdrop):
        both = lambda *x, function=function: ((sums := function(*x, targets, weights, alpha, 0.5, smoothing))[0], sums)
        found.append(jax.jit(jax.value_and_grad(both, argnums=(0, 1, 2), has_aux=True))(hidden, other, head))
    ((_, ours), grads), ((_, theirs), expected) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    for a, b in zip(grads, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_rdrop_of_equal_passes_is_twice_the_cross_entropy():
    hidden, *rest = case(0, 2, 40, 0.5)
    once, paired = cross_entropy_sums(hidden, *rest), rdrop_sums(hidden, hidden, *rest, 3.0)
    np.testing.assert_allclose(paired, [2 * once[0], *once[1:]], rtol=1e-5)


@pytest.mark.parametrize("function, passes", [(cross_entropy_sums, 1), (rdrop_sums, 2)])
def test_the_logits_of_all_positions_are_never_held_at_once(function, passes):
    """Neither as one array nor as the chunks' stacked residuals, in value and gradient."""
    hidden, head, targets, weights = case(0, 2, 96, 0.5)
    rest = (head, targets, weights) + (1.0,) * (passes - 1)
    text = str(jax.make_jaxpr(jax.grad(lambda h: function(*[h] * passes, *rest)[0]))(hidden))
    assert "f32[2,32,11]" in text and "f32[2,96,11]" not in text and "f32[3,2,32,11]" not in text
