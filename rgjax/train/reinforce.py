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


def token_rewards(judge: Callable[[jax.Array, jax.Array], jax.Array], texts, completed) -> jax.Array:
    """A reward for each token of `texts` (tokens and mask [B, T]), float32 [B, T]: the mean of judge(tokens, mask) [B] over the completions of
    what it ends, and of the last token the text's own (Yu et al. 2017, arXiv:1609.05473, equation 4).

    `completed`, tokens and mask [T - 1, N, B, T], are judged a beginning at a time. Where it is None every token gets the verdict on the whole
    text.
    """
    own_B = judge(*texts)
    if completed is None:
        return jnp.broadcast_to(own_B[:, None], texts.tokens.shape)
    one = lambda tokens_and_mask: judge(*tokens_and_mask)
    found_KB = jax.lax.map(lambda texts_NBT: jax.lax.map(one, texts_NBT).mean(0), tuple(completed))
    return jnp.concatenate([found_KB, own_B[None]]).T
