"""Cross entropy over target tokens only, in chunks that never hold all float32 logits."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

CHUNK = 32  # positions of each row scored at once


def cross_entropy_sums(hidden_BTD, head_VD, targets_BT, weights_BT, shrink: float = 1.0, smoothing: float = 0.0):
    """Sums over weighted tokens: (smoothed loss, plain negative log-likelihood, correct predictions, weight), float32 scalars.

    Most positions of a row are prompt and carry no loss. Each row's weighted positions are moved to its front, and a chunk
    in which no row has any is skipped at run time, so the output matrix is multiplied only where there is something to learn.
    The backward pass recomputes a chunk's logits.
    """
    b, t, d = hidden_BTD.shape
    chunk = min(CHUNK, t)
    order = jnp.argsort(weights_BT == 0, axis=1, stable=True)
    take = lambda x: jnp.take_along_axis(x, order, axis=1)
    hidden = jnp.take_along_axis(hidden_BTD, order[..., None], axis=1) * shrink
    pad = -t % chunk
    split = lambda x: jnp.moveaxis(
        jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)).reshape(b, -1, chunk, *x.shape[2:]), 1, 0
    )
    chunks = (split(hidden), split(take(targets_BT)), split(take(weights_BT).astype(jnp.float32)))
    head = head_VD.astype(hidden.dtype)

    @partial(jax.checkpoint, prevent_cse=False)  # around the condition: inside it, every chunk would keep its own copy of the head
    def body(sums, piece):
        found = jax.lax.cond(jnp.any(piece[2] > 0), partial(_scores, smoothing), _nothing, head, *piece)
        return jax.tree.map(jnp.add, sums, found), None

    zero = (jnp.float32(0.0),) * 4
    return jax.lax.scan(body, zero, chunks)[0]


def _nothing(head, hidden, targets, weights):
    return (jnp.float32(0.0),) * 4


def _scores(smoothing, head_VD, hidden_BCD, targets_BC, weights_BC):
    logits = jnp.einsum("bcd,vd->bcv", hidden_BCD, head_VD, preferred_element_type=jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, targets_BC[..., None], axis=-1)[..., 0]
    nll = log_z - picked
    loss = nll if smoothing == 0.0 else (1 - smoothing) * nll + smoothing * (log_z - jnp.mean(logits, axis=-1))
    right = (picked >= jnp.max(logits, axis=-1)).astype(jnp.float32)
    return jnp.sum(loss * weights_BC), jnp.sum(nll * weights_BC), jnp.sum(right * weights_BC), jnp.sum(weights_BC)

