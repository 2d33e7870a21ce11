"""The loss of the next item, over the whole catalogue or against sampled items, as sums over a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.config import BehaviourConfig
from rgjax.train import negatives as negatives_lib
from rgjax.train import ranking_loss
from rgjax.train.loss import cross_entropy_sums
from rgjax.train.negatives import Sampler


def sums(model, batch: dict, key: jax.Array | None, config: BehaviourConfig, sampler: Sampler | None, smoothing: float = 0.0) -> dict[str, jax.Array]:
    """Float32 sums over events that have a next one: `loss`, `nll`, `correct`, `tokens`.

    Without a key (evaluation), and with objective 'softmax', `nll` is that of the whole catalogue and `correct` counts the items that score
    highest of all; in training with sampled items `nll` is the loss and `correct` counts targets above all their negatives.
    """
    keys = (None, None) if key is None else jax.random.split(key)
    hidden, (head, shrink) = model(batch, keys[0]), model.head()
    if key is None or config.objective == "softmax":
        found = cross_entropy_sums(hidden, head, batch["targets"], batch["weights"], shrink, smoothing if key is not None else 0.0)
        return dict(zip(("loss", "nll", "correct", "tokens"), found, strict=True))
    ids, counts, log_q = sampler.draw(keys[1], batch)
    positive = jnp.einsum("btd,btd->bt", hidden, head.astype(hidden.dtype)[batch["targets"]], preferred_element_type=jnp.float32)
    scored = negatives_lib.logits(hidden, head, ids, counts)
    scored, log_q = hardest(scored, log_q, config.negatives) if config.hard > 1 else (scored, log_q)
    if config.objective == "sampled":
        losses = ranking_loss.sampled_softmax(positive, scored, sampler.target_log_q(batch["targets"]), log_q)
    else:
        beta = 1.0 if config.objective == "bce" else ranking_loss.gbce_beta(sampler.items, config.negatives, config.gbce_t)
        losses = ranking_loss.gbce(positive, scored, beta)
    weights = batch["weights"].astype(jnp.float32)
    loss = jnp.sum(losses * weights)
    above = (positive > scored.max(-1)).astype(jnp.float32)
    return {"loss": loss, "nll": loss, "correct": jnp.sum(above * weights), "tokens": jnp.sum(weights)}


def hardest(scored_BTN: jax.Array, log_q: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` highest scores of each position with their log-probabilities, both [B, T, count]."""
    top, places = jax.lax.top_k(scored_BTN, count)
    return top, jnp.take_along_axis(jnp.broadcast_to(log_q, scored_BTN.shape), places, axis=-1)
