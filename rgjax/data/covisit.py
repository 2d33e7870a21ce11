"""Item vectors from behaviour: which items the same shoppers had to do with, in the training split of a dataset."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from rgjax.data.vectors import key
from rgjax.errors import UserError

SMOOTHING = 0.75  # power of the context counts, which lifts rare contexts (Levy et al. 2015)


def item_vectors(examples: Iterable[dict], width: int) -> tuple[list[str], np.ndarray]:
    """(item keys in order of first sight, float32 [items, width]).

    Truncated singular value decomposition of the positive pointwise mutual information of items in one shopper's history (Levy &
    Goldberg 2014): U S^(1/2). Raises UserError when there are too few items for the width, or no two of one shopper.
    """
    names: dict[str, int] = {}
    shoppers: dict[object, int] = {}
    rows, columns, seen = [], [], set()
    for number, example in enumerate(examples):
        shopper = shoppers.setdefault((example.get("user") or {}).get("id") or ("unnamed", number), len(shoppers))
        for thing, name in [*((event, "item") for event in example.get("history") or ()), (example["item"], "id")]:
            if k := key(thing, name):
                pair = (shopper, names.setdefault(k, len(names)))
                if pair not in seen:
                    seen.add(pair)
                    rows.append(pair[0]), columns.append(pair[1])
    if len(names) <= width:
        raise UserError(f"--width={width} needs more than {width} items and the training histories have {len(names)}; lower it.")
    visits = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(shoppers), len(names)))
    return list(names), behaviour_vectors(visits, width)


def behaviour_vectors(visits_UI: sparse.csr_array, width: int) -> np.ndarray:
    """float32 [I, width] from who had to do with what, as `item_vectors`; raises UserError where no two items go together."""
    information = _positive_information(visits_UI)
    if not information.nnz:
        raise UserError("No two items go together in the training histories of --dataset; give one whose shoppers had to do with several each.")
    vectors, scale, _ = svds(information, k=width, random_state=0)
    order = np.argsort(-scale)
    return (vectors[:, order] * np.sqrt(scale[order])).astype(np.float32)


def _positive_information(visits: sparse.csr_array) -> sparse.csr_array:
    """max(0, log p(i, j) / (p(i) p'(j))) over pairs of different items of one shopper, p' smoothed."""
    together = (visits.T @ visits).tocoo()
    apart = together.row != together.col
    i, j, n = together.row[apart], together.col[apart], together.data[apart]
    counts = np.bincount(i, n, visits.shape[1])
    smooth = counts**SMOOTHING
    information = np.log(n * smooth.sum() / np.maximum(counts[i] * smooth[j], 1e-12))
    kept = information > 0
    return sparse.csr_array((information[kept], (i[kept], j[kept])), shape=(visits.shape[1],) * 2)
