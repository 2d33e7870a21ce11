"""Learning from a teacher's probabilities beside the targets (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rgjax.train.loss import over_chunks, per_token


class Distillation(NamedTuple):
    """`weight` of the divergence (the cross entropy has the rest of 1) and the `temperature` of both distributions in it."""

    weight: float
    temperature: float


def distillation_sums(
    hidden_BTD, head_VD, targets_BT, weights_BT, ids_BTK, teacher_BTJ, how: Distillation, shrink: float = 1.0, smoothing: float = 0.0
):
    """As `cross_entropy_sums`; a token's loss is (1 - w) * (smoothed) cross entropy + w * T^2 * KL(teacher || student).

    The divergence is between distributions over K + 1 outcomes: the teacher's K likeliest tokens `ids_BTK` (int32), and all other tokens
    together. `teacher_BTJ` (J = K + 1) holds the teacher's logits of the K, and last the logarithm of the sum of exp(logit / T) over
    all others; all shifted alike, so that softmax(logits / T, last) is its distribution at temperature T. The student's
    is its softmax at T over the whole vocabulary, summed likewise. No mass is dropped: it is the divergence of full distributions less
    what differs among the tokens outside the K. T^2 keeps the gradient's size at other temperatures.
    """
    return over_chunks(partial(_scores, how, smoothing), head_VD, weights_BT, (hidden_BTD * shrink,), targets_BT, ids_BTK, teacher_BTJ)


def _scores(how, smoothing, logits_BCV, targets_BC, ids_BCK, teacher_BCJ, weights_BC):
    loss, nll, right = per_token(logits_BCV, targets_BC, smoothing)
    loss = (1 - how.weight) * loss + how.weight * how.temperature**2 * _divergence(logits_BCV, ids_BCK, teacher_BCJ, how.temperature)
    return jnp.sum(loss * weights_BC), jnp.sum(nll * weights_BC), jnp.sum(right * weights_BC), jnp.sum(weights_BC)


def _divergence(logits_BCV, ids_BCK, teacher_BCJ, temperature) -> jax.Array:
    """KL(teacher || student), float32 [B, C]."""
    teacher_BCJ = teacher_BCJ.astype(jnp.float32)
    log_p = jax.nn.log_softmax(jnp.concatenate([teacher_BCJ[..., :-1] / temperature, teacher_BCJ[..., -1:]], axis=-1), axis=-1)
    scaled = logits_BCV / temperature
    b, c = jnp.indices(ids_BCK.shape[:2])
    others = scaled.at[b[..., None], c[..., None], ids_BCK].set(-jnp.inf)
    parts = [jnp.take_along_axis(scaled, ids_BCK, axis=-1), jax.nn.logsumexp(others, axis=-1, keepdims=True)]
    log_q = jax.nn.log_softmax(jnp.concatenate(parts, axis=-1), axis=-1)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
