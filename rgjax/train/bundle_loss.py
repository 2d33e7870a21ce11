"""What a model of bundles learns: the item that was left out of a set, and which users and sets belong together."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.config import BundleConfig
from rgjax.models.bundle import BundleModel, Views
from rgjax.nn.segments import MASKED

_APART = 0.2  # temperature between the two views of a user (as CrossCBR's 0.25; cosines lie in [-1, 1])


def sums(model: BundleModel, batch: dict, key: jax.Array | None, config: BundleConfig, items: int) -> dict[str, jax.Array]:
    """Float32 sums over sets: `loss`, `nll` and `correct` of the left-out item among all `items` but the set's own, and `tokens`, their number.

    In training the loss also has `contrast` times the mean of three contrasts over the batch (InfoNCE): each user with their set among all sets,
    each set with its user, and a user's items with the same user's bundles.
    """
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    keep = 1.0 if key is None else jax.random.bernoulli(keys[0], 1 - config.item_dropout, (len(model.items[...]), 1))
    table = model.table(keep)
    views = model.views(batch, table, keys[1])
    logits = sum(model.parts(views, table).values()) + MASKED * views.held
    logits = jnp.where(jnp.arange(logits.shape[1]) < items, logits, MASKED)
    weights = batch["weights"].astype(jnp.float32)
    own = jnp.take_along_axis(logits, batch["targets"][:, None], 1)[:, 0]
    nll = jax.nn.logsumexp(logits, 1) - own
    found = {"loss": nll, "nll": nll, "correct": (logits.max(1) <= own).astype(jnp.float32)}
    found = {name: jnp.sum(values * weights) for name, values in found.items()} | {"tokens": weights.sum()}
    if key is not None and config.contrast:
        found["loss"] += config.contrast * contrast(model, views, batch["users"], batch["bundles"]) * found["tokens"]
    return found


def contrast(model: BundleModel, views: Views, users_B: jax.Array, bundles_B: jax.Array) -> jax.Array:
    """Mean over the rows whose user is told of the three contrasts; other rows of the same user or bundle are no negatives."""
    known = (users_B >= 0) & (views.own.sum(1) > 0)
    alike = (users_B[:, None] == users_B[None]) | (bundles_B[:, None] == bundles_B[None])
    same = alike & ~jnp.eye(len(users_B), dtype=bool)
    matched = model.matches(views, views)
    apart = views.user_items @ views.user_bundles.T / _APART
    both = known & (jnp.abs(views.user_bundles).sum(1) > 0)
    return sum((info_nce(matched, same, known), info_nce(matched.T, same, known), info_nce(apart, same, both))) / 3


def info_nce(scores_BB: jax.Array, left_out_BB: jax.Array, counted_B: jax.Array) -> jax.Array:
    """Mean over the counted rows of -log softmax at the diagonal (van den Oord et al. 2018, arXiv:1807.03748), 0 where none is counted.

    Columns that are left out, or not counted, are no negatives.
    """
    kept = (counted_B[None] & ~left_out_BB) | jnp.eye(len(scores_BB), dtype=bool)
    losses = jax.nn.logsumexp(jnp.where(kept, scores_BB, MASKED), 1) - jnp.diagonal(scores_BB)
    weights = counted_B.astype(jnp.float32)
    return jnp.sum(losses * weights) / jnp.maximum(weights.sum(), 1.0)
