"""Link prediction: triples are held out, and the missing end is ranked among all entities, other true ends left out ('filtered').

As Bordes et al. 2013 measure it, but that ties count against the model.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.metrics import ranking
from rgjax.rank import transe

SHARE = 0.1  # of the triples, held out
_ROWS = 256


class Linker(Protocol):
    """Scores every entity as the end of a triple; higher is better."""

    def tails(self, head_B, relation_B):
        """float [B, E]."""

    def heads(self, relation_B, tail_B):
        """float [B, E]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frequent:
    """The floor: how often an entity is the tail, or the head, of a relation, whatever the other end; int [R, E]."""

    as_tail_RE: np.ndarray
    as_head_RE: np.ndarray

    def tails(self, head_B, relation_B):
        """int [B, E]."""
        return self.as_tail_RE[relation_B]

    def heads(self, relation_B, tail_B):
        """int [B, E]."""
        return self.as_head_RE[relation_B]


def frequent(triples_N3: np.ndarray, entities: int, relations: int) -> Frequent:
    """Counts triples."""
    head, relation, tail = triples_N3.T
    count = lambda end: sparse.csr_array((np.ones(len(end), np.int32), (relation, end)), shape=(relations, entities)).toarray()
    return Frequent(count(tail), count(head))


def ranks(linker: Linker, asked_N3: np.ndarray, true_M3: np.ndarray, entities: int) -> np.ndarray:
    """int64 [N, 2]: of each triple asked for, the ranks, from 1, of its head and of its tail, other ends that `true_M3` holds left out."""
    known, by_head, by_tail = transe.known_ends(np.concatenate([asked_N3, true_M3]), entities)
    found = []
    for at in range(0, len(asked_N3), _ROWS):
        part = slice(at, at + _ROWS)
        head, relation, tail = asked_N3[part].T
        rows = np.arange(at, at + len(head))
        heads = ranking.ranks(linker.heads(relation, tail), head, known[by_tail[rows]])
        found.append(np.stack([heads, ranking.ranks(linker.tails(head, relation), tail, known[by_head[rows]])], axis=1))
    return np.concatenate(found)


def held_out(triples_N3: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(triples to learn from, triples to ask for): of different triples a share, of which those whose ends and relation others have are asked for."""
    triples = np.unique(triples_N3, axis=0)
    out = np.random.default_rng(seed).random(len(triples)) < share
    left, asked = triples[~out], triples[out]
    ends, relations = np.unique(left[:, [0, 2]]), np.unique(left[:, 1])
    known = np.isin(asked[:, 0], ends) & np.isin(asked[:, 2], ends) & np.isin(asked[:, 1], relations)
    return left, asked[known]


def evaluate(data: Interactions, share: float = SHARE, seed: int = 0, **options) -> dict[str, dict[str, float]]:
    """{'frequent' and 'transe': MRR and hits at 1 and 10, over heads and tails alike}; `options` are those of `transe.learn`.

    Raises UserError where no triple can be held out.
    """
    entities, relations = len(data.items) + len(data.entities), len(data.relations)
    left, asked = held_out(data.triples.reshape(-1, 3), share, seed)
    if not len(asked):
        raise UserError(f"The shop has {len(data.triples)} triples, too few to hold some out; add more, or leave --measure=triples out.")
    spans = np.tile([0, entities, 0, entities], (relations, 1))
    how = dict(width=64, margin=1.0, rate=0.01, epochs=300, batch=4096, seed=seed) | options
    vectors, _ = transe.learn(transe.graph(left, entities, np.arange(entities), spans), **how)
    found = {}
    for name, linker in (("frequent", frequent(left, entities, relations)), ("transe", vectors)):
        place = ranks(linker, asked, data.triples, entities).reshape(-1)
        found[name] = {"mrr": float((1 / place).mean())} | {f"hits@{k}": float((place <= k).mean()) for k in (1, 10)} | {"triples": len(asked)}
    return found
