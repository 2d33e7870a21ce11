"""Group relative policy optimization (Shao et al. 2024, arXiv:2402.03300, section 4.1): texts drawn for the same input are compared with each other.

Every text is used for one step by the model that drew it, so the ratio of the two policies is 1 and nothing is clipped. Rewards are normalised one
by one before they are added, so that none drowns the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 1e-4  # added to standard deviations


def advantages(rewards_PGK: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    """Float32 [P, G]: how far each text is above its group, the weighted mean over the rewards of (reward - mean) / (standard deviation + 1e-4).

    P inputs of G texts each; a reward that does not tell a group's texts apart adds 0 there.
    """
    centred_PGK = rewards_PGK - rewards_PGK.mean(axis=1, keepdims=True)
    scaled_PGK = centred_PGK / (rewards_PGK.std(axis=1, keepdims=True) + SMALLEST)
    return (scaled_PGK @ (weights_K / np.abs(weights_K).sum())).astype(np.float32)


def group_sums(
    log_probs_BT: jax.Array, reference_BT: jax.Array, mask_BT: jax.Array, advantages_B: jax.Array, kl_weight: float,
) -> dict[str, jax.Array]:  # fmt: skip
    """Float32 sums over the tokens of B texts, whose number is "tokens": `loss` and `kl` (nats).

    The loss is kl_weight * KL - advantage * log p, with the gradient of the policy's surrogate at ratio 1. The KL from the reference is estimated at
    each token as exp(d) - d - 1 of d = log q - log p (equation 4), which is never negative.
    """
    mask_BT = mask_BT.astype(jnp.float32)
    apart_BT = jnp.where(mask_BT > 0, reference_BT - log_probs_BT, 0.0)
    kl = jnp.sum((jnp.exp(apart_BT) - apart_BT - 1) * mask_BT)
    gain = jnp.sum(advantages_B[:, None] * log_probs_BT * mask_BT)
    return {"loss": kl_weight * kl - gain, "kl": kl, "tokens": jnp.sum(mask_BT)}
