"""Classifier-free guidance: the next token by log p(x) + scale * (log p(x | codes) - log p(x)) (Sanchez et al. 2023, arXiv:2306.17806).

Each input is read twice, with its control codes and without; the two rows lie side by side, and one continuation is fed to both.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rgjax.decode import prompt
from rgjax.nn.cache import HeadCache


def sides(scale: float) -> int:
    """Prompts per input: two with guidance, one without (a scale of 1)."""
    return 1 if scale == 1.0 else 2


def prefill(model, tokens_PS: jax.Array, lengths_P: jax.Array, scale: float) -> prompt.Prefilled:
    """Reads `sides` prompts per input, with the codes first; the logits [B, V] are one row per input."""
    filled = prompt.prefill(model, tokens_PS, lengths_P)
    return filled if filled.logits is None else filled._replace(logits=_joined(filled.logits, scale, 1))


def advance(
    model, filled: prompt.Prefilled, caches: list[HeadCache], token_R: jax.Array, i: jax.Array, scale: float,
    lines_RN: jax.Array | None = None, at: jax.Array | None = None,
):  # fmt: skip
    """As `prompt.advance`, of R continuations whose `sides` prompts each were read by `prefill`."""
    copies = len(token_R) * sides(scale) // len(filled.start)
    if sides(scale) == 2:
        per_row = lambda x: x is not None and jnp.ndim(x) > 0  # not what holds for all rows
        token_R, i, lines_RN = (_doubled(x, copies) if per_row(x) else x for x in (token_R, i, lines_RN))
    logits, caches = prompt.advance(model, filled, caches, token_R, i, lines_RN, at)
    return _joined(logits, scale, copies), caches


def _doubled(x_R: jax.Array, copies: int) -> jax.Array:
    """[B * copies, ...] as [B * 2 * copies, ...]: an input's copies with the codes, then the same without."""
    per_input = x_R.reshape(-1, 1, copies, *x_R.shape[1:])
    return jnp.broadcast_to(per_input, (len(per_input), 2, *per_input.shape[2:])).reshape(-1, *x_R.shape[1:])


def _joined(logits_PV: jax.Array, scale: float, copies: int) -> jax.Array:
    """One row [B * copies, V] of each pair."""
    if sides(scale) == 1:
        return logits_PV
    with_codes, without = jnp.moveaxis(jax.nn.log_softmax(logits_PV, axis=-1).reshape(-1, 2, copies, logits_PV.shape[-1]), 1, 0)
    return (without + scale * (with_codes - without)).reshape(-1, logits_PV.shape[-1])
