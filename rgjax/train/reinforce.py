"""REINFORCE (Williams 1992) for texts: a reward at every token, a baseline, and nothing beyond a text's end."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def surrogate(log_probs_BT: jax.Array, rewards_BT: jax.Array, mask_BT: jax.Array, baseline: str) -> jax.Array:
    """Float32 scalar whose gradient is minus the policy gradient: the mean over tokens of -(reward - baseline) log p.

    The baseline 'batch' is the mean of the batch's other texts at the same position (leave-one-out: Kool et al. 2019), which the
    text at hand does not change, so that the gradient stays unbiased; a text alone at its position has none.
    """
    mask_BT, rewards_BT = mask_BT.astype(jnp.float32), jax.lax.stop_gradient(rewards_BT)
    if baseline == "batch":
        others_T, sum_T = jnp.sum(mask_BT, 0) - 1, jnp.sum(rewards_BT * mask_BT, 0)
        rewards_BT = rewards_BT - jnp.where(others_T > 0, (sum_T - rewards_BT) / jnp.maximum(others_T, 1), 0.0)
    return -jnp.sum(rewards_BT * log_probs_BT * mask_BT) / jnp.maximum(jnp.sum(mask_BT), 1.0)


def token_rewards(judge: Callable[[jax.Array], jax.Array], tokens_BT: jax.Array, completed_KNBT: jax.Array) -> jax.Array:
    """A reward for each token, float32 [B, T]: the mean of judge(text) [B] over the completions of what it ends, and of the last
    token the text's own (Yu et al. 2017, arXiv:1609.05473, equation 4).

    `completed_KNBT` [T - 1, N, B, T] are of `decode.recurrent.completions`; they are judged a beginning at a time.
    """
    begun, times, b, length = completed_KNBT.shape
    found_KB = jax.lax.map(lambda texts: judge(texts.reshape(-1, length)).reshape(times, b).mean(0), completed_KNBT)
    return jnp.concatenate([found_KB, judge(tokens_BT)[None]]).T
