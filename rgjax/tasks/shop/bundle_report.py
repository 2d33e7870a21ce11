"""Measures a trained model of bundles on the bundles held out, beside floors."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from scipy import sparse

from rgjax.config import EvaluateConfig, RankingConfig
from rgjax.data.bundles import beside_train, completion_cases
from rgjax.errors import UserError
from rgjax.metrics import bootstrap
from rgjax.rank import bundle_floors, hybrid
from rgjax.tasks.shop.bundle_run import BundleRun
from rgjax.tasks.shop.shop_report import lines_of
from rgjax.train.workdir import replace_text

K, K_BUNDLES = 10, 20
MODEL, UNTOLD, HYBRID = "bundle_model", "bundle_model_user_unknown", "hybrid"
_MIXED = ("knn_bundles_users", "titles")  # floors that the hybrid mixes with the model

_KNOWN = {"workdir", "dataset", "source", "split", "checkpoint", "resamples", "output", "hybrid"}  # flags


def check_flags(given: set[str]) -> None:
    """Raises UserError for the first flag among `given` that means nothing to a run of bundles."""
    if surplus := sorted(given - _KNOWN):
        raise UserError(f"--{surplus[0]} means nothing to a run of --task=bundle; leave it out.")


def evaluate(config: EvaluateConfig, source: str, how: RankingConfig) -> tuple[dict, str]:
    """({"completion", "for_users", "intent"}, a table); writes evaluation.json, where every metric has its 95 % interval.

    Raises UserError for a run or shop that can't be read, a split without bundles, and a hybrid that would be measured on what it learned from.
    """
    if config.split == "train" or (how.hybrid and config.split != "test"):
        raise UserError(f"--split={config.split} was learned from{' by --hybrid' if how.hybrid else ''}; use --split=test.")
    run = BundleRun.open(config.workdir, config.checkpoint, config.dataset, source)
    if not completion_cases(run.shop.bundles, config.split):
        raise UserError(f"The shop has no bundle in --split={config.split}; it needs more bundles.")
    if how.hybrid and not len(run.shop.bundles.of("val")):
        raise UserError("--hybrid learns from validation bundles and the shop has none; leave it out.")
    result = {
        "completion": _completion(run, config, how.hybrid),
        "for_users": _for_users(run, config),
        "intent": bundle_floors.intents(run.shop.interactions.items, run.shop.bundles, config.split),
        "about": {"dataset": run.shop.manifest["name"], "fingerprint": run.facts["dataset_fingerprint"], "split": config.split, "step": run.step}
        | {"synthetic": run.shop.synthetic},
    }  # fmt: skip
    folder = pathlib.Path(config.output or config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "evaluation.json", json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    plain = _values(result)
    return plain, "\n".join(lines_of({name: plain[name] for name in ("completion", "for_users")}))


def _values(found):
    """The same without intervals."""
    if isinstance(found, dict):
        return found["value"] if {"value", "low"} <= found.keys() else {name: _values(one) for name, one in found.items()}
    return found


def scores(run: BundleRun, split: str) -> tuple[dict[str, np.ndarray], sparse.csr_array, np.ndarray, np.ndarray]:
    """(scores [C, I] of every floor and of the model, contexts [C, I], targets [C], whether a case is fresh [C])."""
    data, bundles = run.shop.interactions, run.shop.bundles
    cases = completion_cases(bundles, split)
    contexts, targets = bundle_floors.contexts_of(cases, len(data.items)), np.array([case.target for case in cases])
    found = {name: scorer(contexts) for name, scorer in bundle_floors.scorers(data, bundles).items()}
    for name, told in ((UNTOLD, False), (MODEL, True)):
        found[name] = run.recommender.completions(run.task.case_rows(cases, told))
    return found, contexts, targets, ~beside_train(bundles)[[case.bundle for case in cases]]


def _completion(run: BundleRun, config: EvaluateConfig, mixed: bool) -> dict:
    found, contexts, targets, fresh = scores(run, config.split)
    weights = {}
    if mixed:
        weights, found[HYBRID] = _hybrid(run, found, contexts)
    measured = lambda kept: {
        name: _metrics(bundle_floors.ranks(score, contexts, targets)[kept], K, config.resamples) for name, score in found.items()
    }  # fmt: skip
    result = {"cases": len(targets), "fresh_cases": int(fresh.sum()), "items": contexts.shape[1], "all": measured(np.ones(len(targets), bool))}
    if fresh.any():
        result["fresh"] = measured(fresh)
    return result | ({"weights": weights} if mixed else {})


def _hybrid(run: BundleRun, found: dict[str, np.ndarray], contexts: sparse.csr_array) -> tuple[dict[str, float], np.ndarray]:
    """(weights learned from the validation bundles, their mixture of `found`)."""
    before, known, targets, _ = scores(run, "val")
    names = (MODEL, *_MIXED)
    visible = lambda scores, contexts: np.where(contexts.toarray() > 0, np.median(scores, 1, keepdims=True), scores)
    weights = hybrid.weights_of({name: visible(before[name], known) for name in names}, targets, known)
    return weights, np.asarray(sum(w * hybrid.comparable(visible(found[name], contexts)) for name, w in weights.items()))


def _for_users(run: BundleRun, config: EvaluateConfig) -> dict:
    """Where each held-out bundle of a user of whom something else is known ranks among all bundles that they lack."""
    sets, bundles, items = run.task.sets, run.shop.bundles, run.shop.interactions.items
    asked = [int(b) for b in bundles.of(config.split) if sets.told[b]]
    if not asked:
        return {"users": 0}
    own = [sets.items_of(sets.owner(b), b) for b in asked]
    rows = np.repeat(np.arange(len(asked)), [len(had) for had in own])
    own_UI = sparse.csr_array((np.ones(len(rows), np.float32), (rows, np.concatenate(own))), shape=(len(asked), len(items)))
    had = np.zeros((len(asked), len(bundles)))
    for row, b in enumerate(asked):
        had[row, [other for other, owners in enumerate(sets.owners) if sets.owner(b) in owners and other != b]] = 1
    users = [sets.row(np.zeros(0, int), sets.owner(b), b) for b in asked]
    sold = [sets.row(bundles.members(b), -1) for b in range(len(bundles))]
    found = bundle_floors.for_users(items, bundles, own_UI) | {MODEL: run.recommender.for_users(users, sold)}
    place = lambda score: bundle_floors.ranks(score, sparse.csr_array(had), np.array(asked))
    return {"users": len(asked), "bundles": len(bundles)} | {
        name: _metrics(place(score), K_BUNDLES, config.resamples) for name, score in found.items()
    }


def _metrics(places: np.ndarray, k: int, resamples: int) -> dict[str, dict]:
    inside = places <= k
    gains = np.where(inside, 1 / np.log2(1 + places), 0)
    return bootstrap.intervals({f"hr@{k}": bootstrap.mean(inside), f"ndcg@{k}": bootstrap.mean(gains)}, resamples)
