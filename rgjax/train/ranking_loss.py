"""Losses of the next item against sampled ones; float32, by position."""

from __future__ import annotations

import jax
import jax.numpy as jnp

MINUS = -1e9  # logit of what is no negative: the target itself


def sampled_softmax(positive_BT, negatives_BTN, target_log_q_BT, log_q_BTN) -> jax.Array:
    """-log softmax of the target among itself and the negatives [B, T], each logit less the logarithm of how often its item is drawn.

    So corrected, the expected gradient nears that of the full softmax (Bengio & Senécal 2008; Yi et al. 2019, eq. 3). `log_q` are logarithms
    of the proposal's probability; a constant added to all of them changes nothing, and without the target's own it would be biased.
    """
    positive = (positive_BT - target_log_q_BT)[..., None]
    logits = jnp.concatenate([positive, negatives_BTN - log_q_BTN], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - positive[..., 0]


def gbce(positive_BT, negatives_BTN, beta: float) -> jax.Array:
    """-(beta log s(positive) + sum of log(1 - s(negative))) / N' (Petrov & Macdonald 2023, arXiv:2308.07192, eq. 12), N' the negatives that count.

    The paper divides by N + 1 (positive and negatives alike); dividing by the negatives only scales the loss, and makes bce its case beta = 1
    where there is one negative.
    """
    counts = negatives_BTN > MINUS / 2
    lost = jnp.where(counts, jax.nn.softplus(negatives_BTN), 0.0)
    return (beta * jax.nn.softplus(-positive_BT) + lost.sum(-1)) / jnp.maximum(counts.sum(-1), 1)


def gbce_beta(items: int, negatives: int, t: float) -> float:
    """beta = alpha (t (1 - 1/alpha) + 1/alpha) with the sampling rate alpha = negatives / (items - 1)."""
    alpha = min(1.0, negatives / max(items - 1, 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)
