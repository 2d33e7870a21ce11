"""What is said of items, one block of features for each kind: words of the title, an attribute, a relation of the triples, given vectors.

Each kind is a block of columns in which every item's row has length 1 (TF-IDF of `rgjax.rank.content`, or the vector scaled), or is zeros where
nothing is said: the product of two items' rows in a block is the cosine of the two in that kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions, attribute_values
from rgjax.errors import UserError
from rgjax.rank import content

MOST_TERMS = 20_000  # columns that are kept, those of most items first


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """`rows_IF` float32 [I, F]; `kind_F` int32 [F] is the kind of each column, a number into `kinds`."""

    rows_IF: sparse.csr_array
    kind_F: np.ndarray
    kinds: tuple[str, ...]


def padded(rows: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """(columns int32 [N, T], values float32 [N, T]) of each row's entries, T at most; columns and values are 0 where there are fewer."""
    sizes = np.diff(rows.indptr)
    places = rows.indptr[:-1, None] + np.arange(max(sizes.max(initial=0), 1))
    real = np.arange(places.shape[1]) < sizes[:, None]
    pad = lambda entries, kind: np.where(real, np.append(entries, 0)[np.where(real, places, -1)], 0).astype(kind)
    return pad(rows.indices, np.int32), pad(rows.data, np.float32)


def describe(data: Interactions, known: np.ndarray, vectors: Mapping[str, np.ndarray]) -> Described:
    """Of all items, by what the items of bool `known` [I] have; `vectors` are further kinds by name, float [I, Z] each, zeros for no vector.

    A term that one item alone has tells nothing of others and is left out. Raises UserError where nothing is said of any known item.
    """
    blocks = {}
    for kind, said in _by_kind(data).items():
        if any(said[item] for item in np.flatnonzero(known)):
            block = content.features(said, known)
            blocks[kind] = block[:, np.bincount(block.indices, minlength=block.shape[1]) > 1]
    for kind, given_IZ in vectors.items():
        lengths = np.linalg.norm(given_IZ, axis=1, keepdims=True)
        blocks[kind] = sparse.csr_array(given_IZ / np.maximum(lengths, 1e-12))
    blocks = {kind: block for kind, block in blocks.items() if block.nnz}
    if not blocks:
        raise UserError("No two items of the shop share a word, an attribute or a triple, and two_tower reads these; add some, or leave it out.")
    rows = sparse.hstack(list(blocks.values()), format="csr").astype(np.float32)
    kinds = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks.values()])
    kept = np.sort(np.argsort(-np.bincount(rows.indices, minlength=rows.shape[1]), kind="stable")[:MOST_TERMS])
    return Described(rows[:, kept], kinds[kept].astype(np.int32), tuple(blocks))


def _by_kind(data: Interactions) -> dict[str, list[list[str]]]:
    """Kind -> the terms of each item: 'title', then attributes, then relations, in the order of their names."""
    items = data.items
    found = {"title": [content.terms(title, {}) for title in items.titles]}
    for name in sorted({name for attributes in items.attributes for name in attributes}):
        found[name] = [[f"{name}={v}" for v in attribute_values(attributes, name)] for attributes in items.attributes]
    for number, relation in enumerate(data.relations):
        facts = [[pair for pair in data.facts.get(item, ()) if pair[0] == number] for item in range(len(items))]
        found[f"{relation} (triples)"] = [content.terms("", {}, sorted(pairs)) for pairs in facts]
    return found
