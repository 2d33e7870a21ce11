"""Recommenders by name, and mixtures of them with a trained model of behaviour."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from rgjax.data.holdout import Split
from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import hybrid
from rgjax.rank.recommender import Recommender
from rgjax.tasks.shop.behaviour import item_table
from rgjax.tasks.shop.behaviour_run import BehaviourRun

MODELS = ("popularity", "markov", "knn", "ease", "als", "bpr", "lightgcn", "triples", "transe", "two_tower")
DENSE = ("knn", "ease")  # hold a matrix of all pairs of items
MOST_ITEMS = 30_000  # of those
OWN_USERS = ("bpr", "lightgcn")  # know only the users and events that they were fitted on


def named(models: str) -> list[str]:
    """The names in --models; raises UserError for an unknown one."""
    names = [name for name in models.split(",") if name]
    if unknown := next((name for name in names if name not in MODELS), None):
        raise UserError(f"--models={models} has '{unknown}'; use some of {', '.join(MODELS)}.")
    return names


def fit(name: str, train: Interactions, vectors: str = "") -> Recommender:
    """A recommender by name; `vectors` is the table of items' vectors that two towers read too. Raises UserError for a bad table, and
    where a matrix of all pairs of items would be too large."""
    if name in DENSE and len(train.items) > MOST_ITEMS:
        raise UserError(f"--models={name} holds {len(train.items):,} x {len(train.items):,} numbers; leave it out above {MOST_ITEMS:,} items.")
    given = {"vectors": {"vector": item_table(vectors, train)}} if vectors and name == "two_tower" else {}
    return importlib.import_module(f"rgjax.rank.{name}").fit(train, **given)


def known(parts: Mapping[str, Recommender | None], run: BehaviourRun | None, seen: Interactions) -> dict[str, Recommender]:
    """The parts, each knowing users by `seen`; "behaviour" is the run."""
    return {name: run.recommender(seen) if name == "behaviour" else hybrid.Known(part, seen) for name, part in parts.items()}


def weights(parts: Mapping[str, Recommender | None], run: BehaviourRun | None, split: Split) -> dict[str, float]:
    """The parts' weights by the validation events."""
    return hybrid.fit(known(parts, run, split.val.seen), split.val.seen, split.warm(split.val)).weights


def mixed(parts: Mapping[str, Recommender | None], run: BehaviourRun | None, split: Split, seen: Interactions) -> hybrid.Hybrid:
    """The mixture of `parts`, weighted by the validation events; each part then knows users by `seen`."""
    return hybrid.Hybrid(known(parts, run, seen), weights(parts, run, split))
