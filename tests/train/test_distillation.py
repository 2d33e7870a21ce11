"""The loss against a teacher: value and gradient against the divergence of distributions written out in full."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_loss import case

from rgjax.train.distillation import Distillation, distillation_sums
from rgjax.train.loss import cross_entropy_sums

VOCABULARY, TOP = 11, 3


def taught(seed, b, t, temperature):
    """A teacher's full logits [B, T, V], and what of them a batch holds."""
    rng = np.random.default_rng(seed + 1)
    logits = rng.normal(0, 2, (b, t, VOCABULARY))
    ids = np.argsort(-logits, axis=-1)[..., :TOP]
    best = np.take_along_axis(logits, ids, axis=-1)
    others = logits.copy()
    np.put_along_axis(others, ids, -np.inf, axis=-1)
    rest = np.log(np.exp(others / temperature).sum(-1, keepdims=True))
    return jnp.asarray(logits, jnp.float32), jnp.asarray(ids, jnp.int32), jnp.asarray(np.concatenate([best, rest], -1), jnp.float32)


def grouped(p, ids):
    """Probabilities [..., V] of the ids [..., K], and of all others together."""
    picked = jnp.take_along_axis(p, ids, axis=-1)
    others = jnp.sum(jnp.where(jnp.any(jnp.arange(p.shape[-1])[:, None] == ids[..., None, :], -1), 0.0, p), -1)
    return jnp.concatenate([picked, others[..., None]], -1)


def dense(hidden, head, targets, weights, logits, ids, how, shrink, smoothing):
    own = hidden * shrink @ head.T
    p, q = (grouped(jax.nn.softmax(x / how.temperature), ids) for x in (logits, own))
    divergence = jnp.sum(p * jnp.log(p / q), -1)
    smooth = optax.smooth_labels(jax.nn.one_hot(targets, VOCABULARY), smoothing)
    loss = (1 - how.weight) * optax.softmax_cross_entropy(own, smooth) + how.weight * how.temperature**2 * divergence
    return jnp.sum(loss * weights)


@pytest.mark.parametrize("weight, temperature, smoothing, shrink", [(0.5, 1.0, 0.0, 1.0), (1.0, 2.0, 0.0, 0.6), (0.3, 4.0, 0.1, 1.0)])
@pytest.mark.parametrize("b, t", [(1, 7), (2, 40)])
def test_value_and_gradient_are_those_of_the_full_distributions(weight, temperature, smoothing, shrink, b, t):
    hidden, head, targets, weights = case(3, b, t, 0.6)
    logits, ids, held = taught(3, b, t, temperature)
    how = Distillation(weight, temperature)
    ours = lambda h, w: distillation_sums(h, w, targets, weights, ids, held, how, shrink, smoothing)
    theirs = lambda h, w: dense(h, w, targets, weights, logits, ids, how, shrink, smoothing)
    value, grads = jax.value_and_grad(lambda h, w: ours(h, w)[0], (0, 1))(hidden, head)
    wanted, expected = jax.value_and_grad(theirs, (0, 1))(hidden, head)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for a, e in zip(grads, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)
    plain = cross_entropy_sums(hidden, head, targets, weights, shrink, 0.0)
    np.testing.assert_allclose(ours(hidden, head)[1:], plain[1:], rtol=1e-6)  # what is reported beside it


def test_a_student_equal_to_its_teacher_has_no_divergence():
    hidden, head, targets, weights = case(5, 2, 9, 1.0)
    logits = np.asarray(hidden @ head.T, np.float64)
    ids = np.argsort(-logits, axis=-1)[..., :TOP]
    others = logits.copy()
    np.put_along_axis(others, ids, -np.inf, axis=-1)
    held = np.concatenate([np.take_along_axis(logits, ids, -1), np.log(np.exp(others / 2).sum(-1, keepdims=True))], -1)
    found = distillation_sums(hidden, head, targets, weights, jnp.asarray(ids, jnp.int32), jnp.asarray(held, jnp.float32), Distillation(1.0, 2.0))
    assert abs(float(found[0])) < 1e-4


def test_padding_without_a_teacher_gives_nothing_and_no_nan():
    hidden, head, targets, weights = case(6, 2, 9, 0.5)
    ids, held = jnp.zeros((2, 9, TOP), jnp.int32), jnp.zeros((2, 9, TOP + 1), jnp.float16)
    loss = lambda h: distillation_sums(h, head, targets, 0 * weights, ids, held, Distillation(0.5, 1.0))[0]
    value, grad = jax.value_and_grad(loss)(hidden)
    assert float(value) == 0 and not np.any(np.asarray(grad))
