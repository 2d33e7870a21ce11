"""Cross entropy over target tokens only, in chunks that never hold all float32 logits."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from rgjax.parallel import sharding

CHUNK = 32  # positions of each row scored at once
ACCELERATOR_CHUNK = 4096  # positions of all rows of a device that an accelerator scores at once, at least


def cross_entropy_sums(hidden_BTD, head_VD, targets_BT, weights_BT, shrink: float = 1.0, smoothing: float = 0.0):
    """Sums over weighted tokens: (smoothed loss, plain negative log-likelihood, correct predictions, weight), float32 scalars.

    Most positions of a row are prompt and carry no loss. Each row's weighted positions are moved to its front, and a chunk
    in which no row has any is skipped at run time, so the output matrix is multiplied only where there is something to learn.
    The backward pass recomputes a chunk's logits.
    """
    return over_chunks(partial(_scores, smoothing), head_VD, weights_BT, hidden_BTD * shrink, targets_BT)


def rdrop_sums(hidden_BTD, other_BTD, head_VD, targets_BT, weights_BT, alpha: float, shrink: float = 1.0, smoothing: float = 0.0):
    """As `cross_entropy_sums`, of two passes over one batch with different dropout: R-Drop (Liang et al. 2021, arXiv:2106.14448).

    A token's loss is the paper's: -log p(y) - log q(y) + alpha / 2 * (KL(p||q) + KL(q||p)), with both cross entropies smoothed as
    asked for. Their sum, not their mean: the gradient is about twice that of one pass, which Adam does not notice and clipping does.
    The negative log-likelihood and the correct predictions are means of the two passes, and a token counts once.
    """
    score = partial(_paired_scores, alpha, smoothing)
    return over_chunks(score, head_VD, weights_BT, hidden_BTD * shrink, other_BTD * shrink, targets_BT)


def over_chunks(score, head_VD, weights_BT, *arrays):
    """The four float32 sums of `score(head, *pieces, weights)` over chunks of `arrays` [B, T, ...], the first of them hidden states."""
    head = head_VD.astype(arrays[0].dtype)
    return sharding.summed_over_rows(partial(_over_chunks, score), head, *arrays, weights_BT)


def _over_chunks(score, head, *arrays_and_weights):
    return scan_chunks(score, _nothing(), head, *arrays_and_weights)


def positions(rows: int, length: int) -> int:
    """How many positions of each row are scored at once."""
    return min(CHUNK if jax.default_backend() == "cpu" else max(CHUNK, ACCELERATOR_CHUNK // rows), length)


def scan_chunks(score, zeros, head, *arrays_and_weights):
    """The sums of `score(head, *pieces, weights)`, a tree like `zeros`, over chunks of arrays and weights [B, T, ...], weighted positions first."""
    *arrays, weights_BT = arrays_and_weights
    b, t = weights_BT.shape
    chunk = positions(b, t)
    order = jnp.argsort(weights_BT == 0, axis=1, stable=True)
    take = lambda x: jnp.take_along_axis(x, order.reshape(b, t, *(1,) * (x.ndim - 2)), axis=1)
    pad = -t % chunk
    split = lambda x: jnp.moveaxis(
        jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2)).reshape(b, -1, chunk, *x.shape[2:]), 1, 0
    )
    chunks = tuple(split(take(x)) for x in (*arrays, weights_BT.astype(jnp.float32)))

    @partial(jax.checkpoint, prevent_cse=False)  # around the condition: inside it, every chunk would keep its own copy of the head
    def body(sums, piece):
        found = jax.lax.cond(jnp.any(piece[-1] > 0), score, lambda *_: zeros, head, *piece)
        return jax.tree.map(jnp.add, sums, found), None

    return jax.lax.scan(body, zeros, chunks)[0]


def _nothing():
    return (jnp.float32(0.0),) * 4


def logits_of(head_VD, hidden_BCD):
    """Float32 logits [B, C, V]."""
    return jnp.einsum("bcd,vd->bcv", hidden_BCD, head_VD, preferred_element_type=jnp.float32)


def _scores(smoothing, head_VD, hidden_BCD, targets_BC, weights_BC):
    loss, nll, right = per_token(logits_of(head_VD, hidden_BCD), targets_BC, smoothing)
    return jnp.sum(loss * weights_BC), jnp.sum(nll * weights_BC), jnp.sum(right * weights_BC), jnp.sum(weights_BC)


def _paired_scores(alpha, smoothing, head_VD, hidden_BCD, other_BCD, targets_BC, weights_BC):
    logits, others = logits_of(head_VD, hidden_BCD), logits_of(head_VD, other_BCD)
    one, two = per_token(logits, targets_BC, smoothing), per_token(others, targets_BC, smoothing)
    log_p, log_q = jax.nn.log_softmax(logits, axis=-1), jax.nn.log_softmax(others, axis=-1)
    both_ways = jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)  # KL(p||q) + KL(q||p)
    loss = one[0] + two[0] + 0.5 * alpha * both_ways
    mean = lambda a, b: jnp.sum(0.5 * (a + b) * weights_BC)
    return jnp.sum(loss * weights_BC), mean(one[1], two[1]), mean(one[2], two[2]), jnp.sum(weights_BC)


def per_token(logits_BCV, targets_BC, smoothing):
    """(smoothed loss, negative log-likelihood, whether the target is the likeliest), each float32 [B, C]."""
    log_z = jax.nn.logsumexp(logits_BCV, axis=-1)
    picked = jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]
    nll = log_z - picked
    loss = nll if smoothing == 0.0 else (1 - smoothing) * nll + smoothing * (log_z - jnp.mean(logits_BCV, axis=-1))
    return loss, nll, (picked >= jnp.max(logits_BCV, axis=-1)).astype(jnp.float32)
