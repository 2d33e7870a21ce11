"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): pairs of texts, of which one is liked better, teach a model
without a reward model. A batch [2P, T] holds each pair's two texts one after the other, the preferred first, and `reference` [2P], their
log probabilities under the model that tuning began with."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rgjax.config import OptimizerConfig
from rgjax.train.loss import token_log_probs


def together(config: OptimizerConfig) -> int:
    """How many neighbouring rows of a run's batches make no sense apart: the two of a pair."""
    return 1 if config.preference == "none" else 2


class Preference(NamedTuple):
    """How much a preference counts against staying near the reference, and whether log probabilities are taken per token."""

    beta: float
    per_token: bool = False


def preference_sums(model, batch: dict[str, jax.Array], key: jax.Array | None, how: Preference, smoothing: float = 0.0) -> dict[str, jax.Array]:
    """Float32 sums over pairs, whose number is "tokens": `loss`, `nll` (the loss without smoothing), `correct` (pairs the right way round; one
    that is even counts half) and `margin`.

    The margin is beta * [log p(y) / q(y) - log p(y') / q(y')] of the preferred y, the other y' and the reference q, and the loss its
    -log sigmoid (equation 7); per token each log ratio is divided by its text's length. With smoothing s it is the mean of that, weighing
    1 - s, and of the pair the other way round, weighing s.
    """
    log_probs_B = row_log_probs(model(batch, key), *model.head(), batch["targets"], batch["weights"])
    tokens_B = batch["weights"].sum(1).astype(jnp.float32)
    gain_B = (log_probs_B - batch["reference"]) / (jnp.maximum(tokens_B, 1.0) if how.per_token else 1.0)
    margin_P = how.beta * (gain_B[::2] - gain_B[1::2])
    real_P = (jnp.minimum(tokens_B[::2], tokens_B[1::2]) > 0).astype(jnp.float32)
    nll_P, turned_P = -jax.nn.log_sigmoid(margin_P), -jax.nn.log_sigmoid(-margin_P)
    found = {"loss": (1 - smoothing) * nll_P + smoothing * turned_P, "nll": nll_P, "correct": (1 + jnp.sign(margin_P)) / 2, "margin": margin_P}
    return {name: jnp.sum(values * real_P) for name, values in found.items()} | {"tokens": jnp.sum(real_P)}


def row_log_probs(hidden_BTD, head_VD, shrink: float, targets_BT, weights_BT) -> jax.Array:
    """The log probability of each row's weighted targets, float32 [B]."""
    return jnp.sum(token_log_probs(hidden_BTD, head_VD, shrink, targets_BT, weights_BT), axis=1)
