"""What discriminator and generator minimise, of verdicts [B] on real and written texts (logits: high is real)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class GanLoss(NamedTuple):
    """`discriminator(real, written)` and `generator(real, written)` are float32 scalars; `reward(written, real)` [B] is what REINFORCE raises."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array, jax.Array], jax.Array]
    reward: Callable[[jax.Array, jax.Array], jax.Array]


def _mean(of: Callable) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda real, written: jnp.mean(of(real, written))


_softplus = jax.nn.softplus  # softplus(-x) = -log sigmoid(x)
_both = _mean(lambda real, written: _softplus(-real) + _softplus(written))
_probability = lambda written, real: jax.nn.sigmoid(written)
_verdict = lambda written, real: written

LOSSES = {
    # Goodfellow et al. 2014 (arXiv:1406.2661), equation 1, and the form with stronger gradients of their section 3.
    "bce": GanLoss(_both, _mean(lambda real, written: -_softplus(written)), _probability),
    "nonsaturating": GanLoss(_both, _mean(lambda real, written: _softplus(-written)), _probability),
    # Lim & Ye 2017 (arXiv:1705.02894).
    "hinge": GanLoss(_mean(lambda real, written: jax.nn.relu(1 - real) + jax.nn.relu(1 + written)), _mean(lambda real, written: -written), _verdict),
    # Arjovsky et al. 2017 (arXiv:1701.07875); `gradient_penalty` belongs to it.
    "wasserstein": GanLoss(_mean(lambda real, written: written - real), _mean(lambda real, written: -written), _verdict),
    # Jolicoeur-Martineau 2018 (arXiv:1807.00734), the standard relativistic form.
    "relativistic": GanLoss(
        _mean(lambda real, written: _softplus(written - real)), _mean(lambda real, written: _softplus(real - written)),
        lambda written, real: jax.nn.sigmoid(written - jnp.mean(real)),
    ),
}  # fmt: skip


def gradient_penalty(judge: Callable[[jax.Array], jax.Array], real_BTE: jax.Array, written_BTE: jax.Array, key: jax.Array) -> jax.Array:
    """Mean of (|d judge / d x| - 1)^2 at random points x between token vectors of real and written texts, float32.

    Gulrajani et al. 2017 (arXiv:1704.00028), in the space of token vectors, since texts between two texts are none.
    """
    share_B11 = jax.random.uniform(key, (len(real_BTE), 1, 1))
    gradient_BTE = jax.grad(lambda x: jnp.sum(judge(x)))(share_B11 * real_BTE + (1 - share_B11) * written_BTE)
    square_B = jnp.sum(jnp.square(gradient_BTE), axis=(1, 2))
    norm_B = jnp.where(square_B > 0, jnp.sqrt(jnp.where(square_B > 0, square_B, 1.0)), 0.0)  # the root has no gradient at 0
    return jnp.mean(jnp.square(norm_B - 1))


def told_apart(real_B: jax.Array, written_B: jax.Array) -> jax.Array:
    """The chance that a real text gets a higher verdict than a written one (a tie counts half); 0.5 is guessing."""
    return jnp.mean((1 + jnp.sign(real_B[:, None] - written_B[None])) / 2)
