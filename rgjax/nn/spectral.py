"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957): a matrix divided by its largest singular value."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SQUARINGS = 6  # of the Gram matrix: as 2^6 steps of power iteration


def normalised(w_IO: jax.Array) -> jax.Array:
    """w / sigma(w) of a float32 matrix; the gradient is that of the quotient, with both singular vectors held (equation 12).

    The paper keeps a vector between steps and iterates once; here the Gram matrix is squared anew, which costs little for
    matrices as narrow as a discriminator's and leaves nothing to store.
    """
    held_IO = jax.lax.stop_gradient(w_IO)
    gram = held_IO.T @ held_IO if w_IO.shape[0] >= w_IO.shape[1] else held_IO @ held_IO.T
    for _ in range(SQUARINGS):
        gram = gram / jnp.maximum(jnp.trace(gram), 1e-30)
        gram = gram @ gram
    v = gram[:, jnp.argmax(jnp.diagonal(gram))]  # in its direction all columns lie by now; the longest is never 0
    v = v / jnp.maximum(jnp.linalg.norm(v), 1e-30)
    right_O, left_I = (v, held_IO @ v) if w_IO.shape[0] >= w_IO.shape[1] else (held_IO.T @ v, v)
    left_I, right_O = (x / jnp.maximum(jnp.linalg.norm(x), 1e-30) for x in (left_I, right_O))
    return w_IO / jnp.maximum(left_I @ w_IO @ right_O, 1e-12)
