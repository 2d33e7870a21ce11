"""The fast gradient method on token vectors (Miyato et al. 2017, arXiv:1605.07725): each example moved to where its loss grows fastest."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.train.examples import of_example
from rgjax.train.loss import cross_entropy_sums

SIDES = ("", "encoder_")  # a decoder's rows, and an encoder's


def shifts(model, batch: dict[str, jax.Array], key: jax.Array, epsilon: float, smoothing: float = 0.0) -> dict[str, jax.Array]:
    """`shift`, and for an encoder-decoder `encoder_shift`, float32 [B, T, D], for `model(batch | shifts)`: epsilon * g / |g|, where g is the
    gradient of the loss with respect to the token vectors and |g| its length over an example (equation 5). Both count as given.

    Examples packed into one row have shifts of their own; padding has none.
    """
    held, width = jax.lax.stop_gradient(model), model.config.width
    nothing = {f"{s}shift": jnp.zeros((*batch[f"{s}tokens"].shape, width), jnp.float32) for s in SIDES if f"{s}tokens" in batch}

    def loss(moved: dict) -> jax.Array:
        head, shrink = held.head()
        return cross_entropy_sums(held(batch | moved, key), head, batch["targets"], batch["weights"], shrink, smoothing)[0]

    found = jax.grad(loss)(nothing)
    return {f"{s}shift": epsilon * _directions(found[f"{s}shift"], batch[f"{s}segment_ids"]) for s in SIDES if f"{s}shift" in found}


def _directions(gradient_BTD: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Of length 1 over each example; 0 where the gradient is."""
    length_BT = jnp.sqrt(of_example(jax.ops.segment_sum, jnp.sum(jnp.square(gradient_BTD), axis=-1), segments_BT))
    return jnp.where(((segments_BT > 0) & (length_BT > 0))[..., None], gradient_BTD / jnp.maximum(length_BT, 1e-30)[..., None], 0.0)
