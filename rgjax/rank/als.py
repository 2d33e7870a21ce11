"""Alternating least squares for implicit feedback (Hu, Koren & Volinsky 2008, "Collaborative filtering for implicit feedback datasets")."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank.recommender import as_matrix

_CELLS = 8_000_000  # gathered vectors of one chunk of users (float32): 32 MB
_ENTRIES = 200_000  # entries whose squared errors are summed at once


@dataclasses.dataclass(frozen=True, eq=False)
class Als:
    """`users_UD` and `items_ID` float32, fitted to `taken_UI` with confidence 1 + alpha * r where r > 0, else 1, and an L2 penalty."""

    users_UD: jax.Array
    items_ID: jax.Array
    taken_UI: sparse.csr_array
    penalty: float
    alpha: float

    def scores(self, users: np.ndarray) -> jax.Array:
        """float32 [B, I]."""
        return self.users_UD[jnp.asarray(users)] @ self.items_ID.T

    def from_histories(self, histories: Sequence[np.ndarray]) -> jax.Array:
        """float32 [B, I]: the users' vectors are solved for with the items' fixed; zeros for an empty history."""
        return self.folded_in(as_matrix(histories, len(self.items_ID))) @ self.items_ID.T

    def folded_in(self, taken_BI: sparse.csr_array) -> jax.Array:
        """float32 [B, D]: the best vectors of users who took this."""
        return half_sweep(taken_BI, self.items_ID, self.penalty, self.alpha)

    def objective(self) -> float:
        """What is minimised: sum over ALL users and items of c (p - x'y)^2, plus penalty (|X|^2 + |Y|^2); p is 1 where r > 0, c is confidence.

        In float64; entries without an event come in closed form, from the two Gram matrices.
        """
        x, y = np.asarray(self.users_UD, np.float64), np.asarray(self.items_ID, np.float64)
        total = ((x.T @ x) * (y.T @ y)).sum() + self.penalty * ((x**2).sum() + (y**2).sum())
        entries = self.taken_UI.tocoo()
        for start in range(0, entries.nnz, _ENTRIES):
            part = slice(start, start + _ENTRIES)
            found = (x[entries.row[part]] * y[entries.col[part]]).sum(axis=1)
            total += ((1 + self.alpha * entries.data[part]) * (1 - found) ** 2 - found**2).sum()
        return float(total)


def fit(data: Interactions, width: int = 64, penalty: float = 10.0, alpha: float = 10.0, sweeps: int = 15, seed: int = 0) -> Als:
    """Fits to `data.matrix`; see `fit_matrix`."""
    return fit_matrix(data.matrix, width, penalty, alpha, sweeps, seed)


def fit_matrix(taken_UI: sparse.csr_array, width: int, penalty: float, alpha: float, sweeps: int, seed: int = 0, start_ID=None) -> Als:
    """A sweep solves for all users, then for all items, each exactly.

    taken_UI: r >= 0, float. start_ID: the items' first vectors; None draws them. Raises UserError unless penalty and alpha are above 0.
    """
    if not (penalty > 0 and alpha > 0 and width > 0 and sweeps > 0):
        raise UserError(f"width={width}, penalty={penalty}, alpha={alpha} and sweeps={sweeps} must be above 0.")
    items = jax.random.normal(jax.random.key(seed), (taken_UI.shape[1], width)) * 0.01 if start_ID is None else jnp.asarray(start_ID)
    back_IU, model = taken_UI.T.tocsr(), None
    for _ in range(sweeps):
        users = half_sweep(taken_UI, items, penalty, alpha)
        items = half_sweep(back_IU, users, penalty, alpha)
        model = Als(users, items, taken_UI, penalty, alpha)
    return model


def half_sweep(taken_RI: sparse.csr_array, fixed_ID: jax.Array, penalty: float, alpha: float) -> jax.Array:
    """float32 [R, D]: the vectors that minimise the objective for the rows, given those of the columns."""
    gram_DD = _gram(fixed_ID, penalty)
    solved = [(rows, _solve(fixed_ID, gram_DD, columns, alpha * values)) for rows, columns, values in _chunks(taken_RI, fixed_ID.shape[1])]
    found = np.zeros((taken_RI.shape[0], fixed_ID.shape[1]), np.float32)  # rows without entries are solved by zeros
    for rows, vectors in solved:
        found[rows] = np.asarray(vectors)[: len(rows)]
    return jnp.asarray(found)


def _chunks(taken_RI: sparse.csr_array, width: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows [N], their columns [M, L], their values [M, L], 0 where padded, M >= N); L and M are powers of two, so that few programs compile."""
    sizes = np.diff(taken_RI.indptr)
    lengths = 2 ** np.ceil(np.log2(np.maximum(sizes, 8))).astype(int)
    for length in np.unique(lengths[sizes > 0]):
        own = np.flatnonzero((lengths == length) & (sizes > 0))
        most = 2 ** int(np.log2(max(1, _CELLS // (max(length, width) * width))))
        most = min(most, 2 ** int(np.ceil(np.log2(len(own)))))
        for start in range(0, len(own), most):
            rows = own[start : start + most]
            places = taken_RI.indptr[rows][:, None] + np.arange(length)
            real = np.arange(length) < sizes[rows][:, None]
            places = np.where(real, places, 0)
            pad = ((0, most - len(rows)), (0, 0))
            yield rows, np.pad(taken_RI.indices[places] * real, pad), np.pad(taken_RI.data[places] * real, pad).astype(np.float32)


@jax.jit
def _gram(fixed_ID, penalty):
    with jax.default_matmul_precision("highest"):
        return fixed_ID.T @ fixed_ID + penalty * jnp.eye(fixed_ID.shape[1], dtype=fixed_ID.dtype)


@jax.jit
def _solve(fixed_ID, gram_DD, columns_ML, extra_ML):
    """[M, D]: (gram + sum extra y y')^-1 sum (1 + extra) y; rows without entries give 0."""
    with jax.default_matmul_precision("highest"):
        vectors_MLD = fixed_ID[columns_ML]
        scaled_MLD = vectors_MLD * jnp.sqrt(extra_ML)[..., None]
        left_MDD = gram_DD + jnp.einsum("mld,mle->mde", scaled_MLD, scaled_MLD)
        right_MD = jnp.einsum("mld,ml->md", vectors_MLD, jnp.where(extra_ML > 0, 1 + extra_ML, 0.0))
        factor = jnp.linalg.cholesky(left_MDD)
        return jax.scipy.linalg.cho_solve((factor, True), right_MD[..., None])[..., 0]
