"""EASE: a linear item-to-item model in closed form (Steck 2019, "Embarrassingly shallow autoencoders for sparse data")."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank.recommender import as_matrix, times


@dataclasses.dataclass(frozen=True, eq=False)
class Ease:
    """`weights_II` float32, zero on the diagonal: the score of item j is the sum of weights[i, j] over the items i that were taken."""

    weights_II: jax.Array
    taken_UI: sparse.csr_array

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        return times(self.taken_UI[np.asarray(users)], self.weights_II)

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """float32 [B, I] of any items; zeros for an empty history."""
        return times(as_matrix(histories, self.weights_II.shape[0]), self.weights_II)

    def added(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """float32 [M, N]: the weights from each of the different items [N] of a history to each of `items` [M]."""
        return np.asarray(self.weights_II)[np.ix_(history, items)].T


def fit(data: Interactions, penalty: float = 500.0) -> Ease:
    """The weights B that minimise ||X - X B||^2 + penalty ||B||^2 with diag B = 0: B = I - P / diag P, P = (X'X + penalty I)^-1.

    Memory is two float64 matrices [I, I]. Raises UserError unless penalty > 0.
    """
    if not penalty > 0:
        raise UserError(f"penalty={penalty} must be above 0; 500 suits MovieLens 1M.")
    taken = data.matrix
    gram = (taken.T @ taken).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = inverted(gram)
    weights = (inverse / -np.diag(inverse)).astype(np.float32)
    np.fill_diagonal(weights, 0.0)
    return Ease(jnp.asarray(weights), taken)


def inverted(gram: np.ndarray) -> np.ndarray:
    """The inverse, float64, of a positive definite matrix, whose memory is used up.

    On the CPU by LAPACK's potrf and potri, half the work of solving for the identity; elsewhere by JAX in float64.
    """
    if jax.default_backend() == "cpu":
        factor, failed = lapack.dpotrf(gram.T, lower=1, overwrite_a=1)  # the transpose is in Fortran's order already: no copy
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1) if not failed else (factor, 0)
        if failed:
            raise UserError("The items' Gram matrix is not positive definite; raise the penalty.")
        return np.tril(inverse) + np.tril(inverse, -1).T
    return solved(gram)


def solved(gram: np.ndarray) -> np.ndarray:
    """As `inverted`, on JAX's device."""
    with jax.enable_x64(True):
        matrix = jnp.asarray(gram)
        return np.asarray(jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), jnp.eye(len(matrix))))
