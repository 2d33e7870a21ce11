"""Cross entropy over target tokens only, in chunks that never hold all float32 logits."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from rgjax.nn.positions import at
from rgjax.parallel import sharding

CHUNK = 32  # positions of each row scored at once
ACCELERATOR_CHUNK = 4096  # positions of all rows of a device that an accelerator scores at once, at least


def cross_entropy_sums(hidden_BTD, head_VD, targets_BT, weights_BT, shrink: float = 1.0, smoothing: float = 0.0):
    """Sums over weighted tokens: (smoothed loss, plain negative log-likelihood, correct predictions, weight), float32 scalars.

    Most positions of a row are prompt and carry no loss. Each row's weighted positions are moved to its front, and chunks
    in which no row has any are left out at run time, so the output matrix is multiplied only where there is something to learn.
    Only the loss, the first sum, has a gradient.
    """
    return over_chunks(partial(_scores, smoothing), head_VD, weights_BT, (hidden_BTD * shrink,), targets_BT)


def rdrop_sums(hidden_BTD, other_BTD, head_VD, targets_BT, weights_BT, alpha: float, shrink: float = 1.0, smoothing: float = 0.0):
    """As `cross_entropy_sums`, of two passes over one batch with different dropout: R-Drop (Liang et al. 2021, arXiv:2106.14448).

    A token's loss is the paper's: -log p(y) - log q(y) + alpha / 2 * (KL(p||q) + KL(q||p)), with both cross entropies smoothed as
    asked for. Their sum, not their mean: the gradient is about twice that of one pass, which Adam does not notice and clipping does.
    The negative log-likelihood and the correct predictions are means of the two passes, and a token counts once.
    """
    score = partial(_paired_scores, alpha, smoothing)
    return over_chunks(score, head_VD, weights_BT, (hidden_BTD * shrink, other_BTD * shrink), targets_BT)


OF_TARGETS = ("targets", "weights", "teacher_ids", "teacher_logits")  # what a batch holds for each target


def asked(batch: dict[str, jax.Array], most: int) -> dict[str, jax.Array]:
    """The batch for a model that answers only where there is loss: with `asked`, int32 [B, most], positions of each row, weighted ones first, and
    with what it holds for each target at these alone. No row may have more weighted positions; batches of shorter rows stay as they are."""
    if most >= batch["weights"].shape[1]:
        return batch
    order_BN = Order(batch["weights"]).order_BT[:, :most]
    return batch | {"asked": order_BN} | {name: at(batch[name], order_BN) for name in OF_TARGETS if name in batch}


def over_chunks(score, head_VD, weights_BT, hidden: tuple, *arrays):
    """The float32 sums of `score(*logits, *pieces, weights)` over chunks of positions; the first of them, the loss, has a gradient.

    `logits` [B, C, V] are those of each of `hidden`, hidden states [B, T, D], and `pieces` [B, C, ...] are cut from `arrays` [B, T, ...].
    """
    count = len(hidden)
    # Each device converts the matrix itself: so its gradient is added up among devices in the parameter's type.
    sums = lambda head, *rows: _over_chunks(score, head.astype(hidden[0].dtype), rows[:count], rows[count:])
    return sharding.summed_over_rows(sums, head_VD, *hidden, *arrays, weights_BT)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _over_chunks(score, head_VD, hidden, arrays):
    """As `over_chunks`, of one device's rows; the weights are the last of `arrays`."""
    order = Order(arrays[-1])
    hidden, arrays = order.chunks(hidden), order.chunks(arrays)

    def add(k, sums):
        logits = [logits_of(head_VD, x[k]) for x in hidden]
        return jax.tree.map(jnp.add, sums, score(*logits, *(x[k] for x in arrays)))

    return jax.lax.fori_loop(0, order.needed, add, _nothing())


def _forward(score, head, hidden, arrays):
    """The sums and, from the same logits, what the loss's gradient is of the head and of hidden states: nothing is computed again later.

    Rows of the gradient of logits have the compute type, as the products they enter; the head's adds up in float32.
    """
    trains_head, hidden, arrays = head.perturbed, [x.value for x in hidden], [x.value for x in arrays]
    head_VD, order = head.value, Order(arrays[-1])
    pieces, others = order.chunks(hidden), order.chunks(arrays)

    def add(k, carry):
        sums, d_head_VD, d_hidden = carry
        states, rest = [x[k] for x in pieces], [x[k] for x in others]
        logits = [logits_of(head_VD, x) for x in states]
        d_logits, new = jax.grad(lambda x: ((found := score(*x, *rest))[0], found), has_aux=True)(logits)
        pulled = [_pull(head_VD, x, g.astype(x.dtype), trains_head) for x, g in zip(states, d_logits, strict=True)]
        d_head_VD = sum((d for d, _ in pulled), d_head_VD) if trains_head else None
        d_hidden = [all_KBCD.at[k].set(d) for all_KBCD, (_, d) in zip(d_hidden, pulled, strict=True)]
        return jax.tree.map(jnp.add, sums, new), d_head_VD, d_hidden

    zeros = jnp.zeros(head_VD.shape, jnp.float32) if trains_head else None
    sums, d_head_VD, d_hidden = jax.lax.fori_loop(0, order.needed, add, (_nothing(), zeros, [jnp.zeros_like(x) for x in pieces]))
    return sums, (None if d_head_VD is None else d_head_VD.astype(head_VD.dtype), order.back(d_hidden))


def _backward(score, saved, cotangents):
    d_head, d_hidden = saved
    scale = cotangents[0]
    if isinstance(scale, SymbolicZero):
        return None, None, None
    times = lambda d: (d * scale).astype(d.dtype)
    return None if d_head is None else times(d_head), tuple(map(times, d_hidden)), None


_over_chunks.defvjp(_forward, _backward, symbolic_zeros=True)


def _pull(head_VD, hidden_BCD, g_BCV, head_too: bool = True):
    """Gradients (of the head, float32 [V, D] or None; of hidden states, in their type) that a gradient of logits in the compute type means."""
    d_hidden_BCD = jnp.einsum("bcv,vd->bcd", g_BCV, head_VD)
    if not head_too:
        return None, d_hidden_BCD
    flat = lambda x: x.reshape(-1, x.shape[-1])  # see nn.linear
    return jnp.einsum("nv,nd->vd", flat(g_BCV), flat(hidden_BCD), preferred_element_type=jnp.float32), d_hidden_BCD


def token_log_probs(hidden_BTD, head_VD, shrink: float, targets_BT, weights_BT) -> jax.Array:
    """The log probability of each weighted target, 0 elsewhere, float32 [B, T]; in chunks as `cross_entropy_sums` takes them."""
    return sharding.each_row(_token_log_probs, head_VD, hidden_BTD * shrink, targets_BT, weights_BT)


def _token_log_probs(head_VD, hidden_BTD, targets_BT, weights_BT) -> jax.Array:
    """As `token_log_probs`, of one device's rows. The head keeps its type: so do the parts of its gradient, as they are added up."""
    order = Order(weights_BT)

    @partial(jax.checkpoint, prevent_cse=False)  # around the condition: inside it, every chunk would keep its own copy of the head
    def scored(_, piece):
        hidden_BCD, targets_BC, weights_BC = piece
        score = lambda: -per_token(logits_of(head_VD, hidden_BCD), targets_BC, 0.0)[1] * weights_BC
        return None, jax.lax.cond(jnp.any(weights_BC > 0), score, lambda: jnp.zeros(targets_BC.shape, jnp.float32))

    return order.back([jax.lax.scan(scored, None, tuple(order.chunks((hidden_BTD, targets_BT, weights_BT))))[1]])[0]


class Order:
    """Each row's weighted positions first: how arrays [B, T, ...] are cut into K chunks [B, C, ...], and put together again."""

    def __init__(self, weights_BT: jax.Array):
        self.rows, self.length = weights_BT.shape
        self.chunk = positions(*weights_BT.shape)
        self.order_BT = jnp.argsort(weights_BT == 0, axis=1, stable=True)
        self.needed = -(-jnp.max(jnp.sum(weights_BT != 0, axis=1)) // self.chunk)  # chunks in which some row has weight

    def chunks(self, arrays) -> list[jax.Array]:
        """[K, B, C, ...] of each array."""
        return [self._split(at(x, self.order_BT)) for x in arrays]

    def _split(self, x):
        padded = jnp.pad(x, ((0, 0), (0, -self.length % self.chunk)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(self.rows, -1, self.chunk, *x.shape[2:]), 1, 0)

    def back(self, chunks) -> list[jax.Array]:
        """[B, T, ...] of each of `chunks`, as `chunks` was given them."""
        inverse_BT = jnp.argsort(self.order_BT, axis=1)  # a gather by it is the transpose of one by the order, and adds nothing up
        joined = (jnp.moveaxis(x, 0, 1).reshape(self.rows, -1, *x.shape[3:])[:, : self.length] for x in chunks)
        return [at(x, inverse_BT) for x in joined]


def positions(rows: int, length: int) -> int:
    """How many positions of each row are scored at once."""
    return min(CHUNK if jax.default_backend() == "cpu" else max(CHUNK, ACCELERATOR_CHUNK // rows), length)


def _nothing():
    return (jnp.float32(0.0),) * 4


@jax.custom_vjp
def logits_of(head_VD, hidden_BCD):
    """Float32 logits [B, C, V]; their gradient is rounded to the hidden states' type before it is multiplied."""
    return jnp.einsum("bcd,vd->bcv", hidden_BCD, head_VD.astype(hidden_BCD.dtype), preferred_element_type=jnp.float32)


def _logits_backward(saved, g_BCV):
    head_VD, hidden_BCD = saved
    d_head_VD, d_hidden_BCD = _pull(head_VD.astype(hidden_BCD.dtype), hidden_BCD, g_BCV.astype(hidden_BCD.dtype))
    return d_head_VD.astype(head_VD.dtype), d_hidden_BCD


logits_of.defvjp(lambda head_VD, hidden_BCD: (logits_of(head_VD, hidden_BCD), (head_VD, hidden_BCD)), _logits_backward)


def _scores(smoothing, logits_BCV, targets_BC, weights_BC):
    loss, nll, right = per_token(logits_BCV, targets_BC, smoothing)
    return jnp.sum(loss * weights_BC), jnp.sum(nll * weights_BC), jnp.sum(right * weights_BC), jnp.sum(weights_BC)


def _paired_scores(alpha, smoothing, logits_BCV, others_BCV, targets_BC, weights_BC):
    one, two = per_token(logits_BCV, targets_BC, smoothing), per_token(others_BCV, targets_BC, smoothing)
    log_p, log_q = jax.nn.log_softmax(logits_BCV, axis=-1), jax.nn.log_softmax(others_BCV, axis=-1)
    both_ways = jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1)  # KL(p||q) + KL(q||p)
    loss = one[0] + two[0] + 0.5 * alpha * both_ways
    mean = lambda a, b: jnp.sum(0.5 * (a + b) * weights_BC)
    return jnp.sum(loss * weights_BC), mean(one[1], two[1]), mean(one[2], two[2]), jnp.sum(weights_BC)


def per_token(logits_BCV, targets_BC, smoothing):
    """(smoothed loss, negative log-likelihood, whether the target is the likeliest), each float32 [B, C]."""
    log_z = jax.nn.logsumexp(logits_BCV, axis=-1)
    # A comparison, not a gather, whose gradient would scatter into an array of all logits.
    picked = jnp.sum(jnp.where(jnp.arange(logits_BCV.shape[-1]) == targets_BC[..., None], logits_BCV, 0.0), axis=-1)
    nll = log_z - picked
    loss = nll if smoothing == 0.0 else (1 - smoothing) * nll + smoothing * (log_z - jnp.mean(logits_BCV, axis=-1))
    return loss, nll, (picked >= jnp.max(logits_BCV, axis=-1)).astype(jnp.float32)
