"""Measures recommenders on what was held out: those fitted on the spot, and a trained model of behaviour beside them."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping

import numpy as np

from rgjax.config import EvaluateConfig, RankingConfig, ShopConfig
from rgjax.data import holdout, shop_folder
from rgjax.data.holdout import Held, Split
from rgjax.data.interactions import Interactions, attribute_values
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.metrics import bootstrap, catalogue, exposure, ranking, recommender_definitions
from rgjax.rank import hybrid, topk
from rgjax.rank.content import with_placed_items
from rgjax.rank.evaluate import held_out
from rgjax.rank.evidence import METHODS, Explainer
from rgjax.rank.recommender import HistoryRecommender, Recommender
from rgjax.rank.sequence import SequenceRecommender
from rgjax.rank.two_tower import TwoTower
from rgjax.tasks.shop import mixture, reason_part
from rgjax.tasks.shop.behaviour_run import BehaviourRun
from rgjax.train.workdir import replace_text

MOST_KINDS = 50  # values of an attribute that is told by


def evaluate(config: EvaluateConfig, shop: ShopConfig, how: RankingConfig, progress) -> tuple[dict, str]:
    """({model: {metric: value}} with what was measured under "about", a table for the terminal); writes evaluation.json where there is a place.

    Raises UserError for an unknown model, a length of the list beyond the catalogue, or a run or shop that can't be read.
    """
    run = BehaviourRun.open(config.workdir, config.checkpoint, config.dataset, shop.source) if config.workdir else None
    found = run.shop if run else shop_folder.open_any(config.dataset, shop.layout, shop.source)
    if config.split == "train":
        raise UserError("--split=train holds nothing out; use val or test.")
    split = run.task.split if run else holdout.split(found.interactions.named(), shop)
    held, lengths = getattr(split, config.split), _lengths(how.at, len(found.interactions.items))
    shop, todo = run.facts["shop"] if run else shop, mixture.named(how.models)
    _check(config, shop, how, todo, bool(run))
    if not (split.warm(held) >= 0).any():
        raise UserError(f"No user has an event to ask for in --split={config.split}; users need more events, or fewer of them held out or cold.")
    parts, intervals, total = {}, {}, len(todo) + bool(run) + how.hybrid + bool(how.explain)
    measured = lambda fitted: _measure(fitted, split, held, split.warm(held), lengths, how.sampled, config.resamples)
    for number, name in enumerate([*todo, *(["behaviour"] if run else [])]):
        progress(number, total)
        start = time.perf_counter()
        parts[name] = run.recommender(held.seen) if name == "behaviour" else mixture.fit(name, split.train, how.item_table)
        seconds = time.perf_counter() - start
        intervals[name] = measured(parts[name]) | {"fit_seconds": {"value": round(seconds, 2)}}
        if isinstance(parts[name], TwoTower):
            intervals[name] |= _weights(parts[name].content_weights())
    about = _about(found, shop, config, split, held)
    if how.hybrid:
        mixed = mixture.mixed(parts, run, split, split.test.seen)
        intervals["hybrid"] = measured(mixed) | _weights(mixed.weights)
    intervals |= _cold(parts, split, held, lengths, config.resamples)
    result = {name: {metric: entry["value"] for metric, entry in found.items()} for name, found in intervals.items()} | {"about": about}
    if how.reasons:
        models = parts if how.hybrid else {"behaviour": parts["behaviour"]}
        weights = mixed.weights if how.hybrid else {"behaviour": 1.0}  # one part ranks the same by any weight
        about["reasons"] = reason_part.measure(run, lambda seen: hybrid.Hybrid(mixture.known(models, run, seen), weights), split, how)
    if how.explain:
        about["evidence"] = faithfulness(run, held, how.explain, how.explain_share)
    progress(total, total)
    if folder := config.output or config.workdir:
        told = dict.fromkeys(name for measured in (*intervals.values(), *about.get("evidence", {}).values()) for name in measured)
        kept = intervals | {"about": about | {"definitions": recommender_definitions.definitions(told)}}
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        replace_text(pathlib.Path(folder, "evaluation.json"), json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return result, table(result)


def _check(config: EvaluateConfig, shop: ShopConfig, how: RankingConfig, models: list[str], run: bool) -> None:
    """Raises UserError for flags that contradict each other; `run` says whether a trained one is measured."""
    if how.hybrid and (config.split == "val" or shop.train_on_validation):
        raise UserError("--hybrid learns from the validation events; measure it with --split=test and without --train_on_validation.")
    if config.split == "val" and shop.train_on_validation:
        raise UserError("--split=val was trained on (--train_on_validation) and can't be measured by; use --split=test.")
    if how.explain and not run:
        raise UserError(f"--explain={how.explain} is about a trained run; give its --workdir.")
    if how.item_table and "two_tower" not in models:
        raise UserError(f"--item_table={how.item_table} is read by two_tower only; name it in --models, or leave the table out.")
    if how.reasons and not run:
        raise UserError(f"--reasons={how.reasons} are written for a trained run's recommendations; give its --workdir.")
    if how.reasons and config.split != "test":
        raise UserError("--reasons are weighed by the validation events; measure with --split=test.")
    if how.hybrid and len(models) + run < 2:
        raise UserError("--hybrid mixes recommenders; name two at least with --models, or one beside a --workdir.")


def _weights(named: Mapping[str, float]) -> dict[str, dict]:
    return {f"weight_{name}": {"value": round(weight, 4)} for name, weight in named.items()}


def faithfulness(run: BehaviourRun, held: Held, users: int, share: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """For each method of evidence the mean score drops by deletion (`Explainer.faithfulness`) of the first recommendation of some users."""
    known, rng = run.recommender(held.seen), np.random.default_rng(seed)
    several = np.diff(held.seen.offsets) > 1  # of one event nothing can be kept when it is removed
    asked = np.sort(rng.permutation(np.flatnonzero((held.items >= 0) & several))[:users])
    best = topk.top_k(known.user_vectors(asked), known.item_vectors(), 1, seen_UI=held.seen.matrix[asked]).items[:, 0] if len(asked) else asked
    asked, best = asked[best >= 0], best[best >= 0]
    if not len(asked):
        return {}
    explainer, found = Explainer(known), {}
    for method in METHODS:
        draws = np.random.default_rng(seed)  # the same random events for every method
        rows = [explainer.faithfulness(int(user), int(item), method, share, draws) for user, item in zip(asked, best, strict=True)]
        found[method] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]} | {"users": len(rows)}
    return found


def _lengths(text: str, items: int) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = [0]
    if found[0] < 1 or found[-1] > items:
        raise UserError(f"--at={text} has to be lengths from 1 to the {items} items of the catalogue, as 10 or 10,20.")
    return found


def _cold(parts: dict[str, Recommender], split: Split, held: Held, lengths: list[int], resamples: int) -> dict[str, dict]:
    """The same metrics for users that nothing was trained on, and for items that were not, where the split keeps some apart.

    Such users are known by their histories, so only what scores histories is asked. Such items have no vector of their own: a model of behaviour
    places them by their description, triples, transe and two_tower read it themselves, and the others rank them as what nobody had.
    """
    asks_history = {n: p for n, p in parts.items() if isinstance(p, (HistoryRecommender, SequenceRecommender))}
    users = np.where(split.cold_users & ~split.cold_items[np.maximum(held.items, 0)], held.items, -1)
    items = np.where(split.cold_items[np.maximum(held.items, 0)] & ~split.cold_users, held.items, -1)
    measured = lambda part, asked: _measure(part, split, held, asked, lengths, 0, resamples)
    found = {}
    if (users >= 0).any():
        found |= {f"{name}, cold users": measured(part, users) for name, part in asks_history.items()}
    if (items >= 0).any():
        placed = {n: with_placed_items(p, held.seen, split.train.counts > 0) if isinstance(p, SequenceRecommender) else p for n, p in parts.items()}
        found |= {f"{name}, cold items": measured(part, items) for name, part in placed.items()}
    return found


def _measure(
    fitted: Recommender, split: Split, held: Held, asked: np.ndarray, lengths: list[int], sampled: int, resamples: int
) -> dict[str, dict]:
    """Each metric as {"value", "low", "high"}; what is a property of all lists together has a value alone. `asked` [U] are held-out items."""
    data = held.seen
    ranked = held_out(fitted, data, asked, lengths[-1], from_seen=isinstance(fitted, HistoryRecommender), negatives=sampled)
    values, whole = {}, {}
    counts, users = split.train.counts, len(np.unique(split.train.user))
    for k in lengths:
        values |= ranking.named(ranking.at_ranks(ranked.ranks, k), k)
        if sampled:
            values |= ranking.named({name: v for name, v in ranking.at_ranks(ranked.sampled, k).items() if name in ("hr", "ndcg")}, k, sampled)
        lists = ranked.lists[:, :k]
        values |= {f"novelty@{k}": catalogue.novelty(lists, np.maximum(counts, 1), users)}
        values[f"average_popularity@{k}"] = catalogue.average_popularity(lists, counts)
        values[f"tail_percentage@{k}"] = catalogue.tail_percentage(lists, counts)
        values |= _by_attributes(lists, data, ranked.users, k)
        whole |= _gaps(values[f"ndcg@{k}"], data, ranked.users, k)
        whole |= _of_all_lists(lists, split, data, ranked.users, asked, k)
    if isinstance(fitted, (SequenceRecommender, hybrid.Hybrid)):  # their scores are logits: how sure they are of the first item can be checked
        first = ranked.ranks == 1
        whole["ece"] = {"value": exposure.expected_calibration_error(ranked.confidence, first)}
        whole["brier"] = {"value": exposure.brier(ranked.confidence, first)}
    return ranking.means(values, resamples) | whole | {"users": {"value": int((asked >= 0).sum())}}


def _of_all_lists(lists: np.ndarray, split: Split, data: Interactions, users: np.ndarray, asked: np.ndarray, k: int) -> dict[str, dict]:
    """What all lists together do to the catalogue, and to its tail beside the other items that training knows, where it is long enough for one."""
    counts, items = split.train.counts, len(data.items)
    found = {"coverage": catalogue.coverage(lists, items), "gini": catalogue.gini(lists, items), "entropy": catalogue.entropy(lists, items)}
    found["popularity_lift"] = catalogue.popularity_lift(lists, [data.history(user) for user in users], counts)
    tail = catalogue.tail(counts)
    others = (counts > 0) & ~tail
    if tail.any() and others.any():
        shown, due = exposure.exposure(lists, items), np.bincount(asked[asked >= 0], minlength=items)
        found["exposure_ratio"] = exposure.exposure_ratio(shown, tail, others)
        found["disparate_treatment"] = exposure.disparate_treatment(shown, due, tail, others)
    return {f"{name}@{k}": {"value": bootstrap.number(value)} for name, value in found.items()}


def _by_attributes(lists: np.ndarray, data: Interactions, users: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Diversity of lists and their distance from histories by the items' attributes; empty where these have none."""
    names = {name for attributes in data.items.attributes for name in attributes}
    if not names or k < 2:
        return {}
    sets = [{(n, v) for n in attributes for v in attribute_values(attributes, n)} for attributes in data.items.attributes]
    found = {f"attribute_diversity@{k}": catalogue.attribute_diversity(lists, sets)}
    histories = [data.history(user) for user in users]
    for name in sorted(names):
        kinds, shares = catalogue.categories(data.items.attributes, name)
        if 1 < len(kinds) <= MOST_KINDS:
            found[f"miscalibration_{name}@{k}"] = catalogue.miscalibration(lists, histories, shares)
    return found


def _gaps(ndcg: np.ndarray, data: Interactions, users: np.ndarray, k: int) -> dict[str, dict]:
    """The largest difference of NDCG between groups of users, by each attribute of their profiles that has few values."""
    found = {}
    for name in sorted({name for profile in data.profiles for name in profile}):
        groups = [str(data.profiles[user].get(name, "unknown")) for user in users]
        if 1 < len(set(groups)) <= MOST_KINDS:
            found[f"ndcg@{k}_gap_{name}"] = {"value": bootstrap.number(exposure.group_gap(ndcg, groups))}
    return found


def _about(found: Shop, shop: ShopConfig, config: EvaluateConfig, split: Split, held: Held) -> dict:
    return {
        "dataset": found.manifest["name"], "fingerprint": found.fingerprint, "split": config.split, "synthetic": found.synthetic,
        "hold_out": shop.hold_out,
        "trained_on_validation": shop.train_on_validation, "users": len(found.interactions.users), "items": len(found.interactions.items),
        "events": len(found.interactions), "train_events": len(split.train), "ranking": "full catalogue, seen items left out, ties against the model",
        "cold_users": int(split.cold_users.sum()), "cold_items": int(split.cold_items.sum()), "asked": int((held.items >= 0).sum()),
    }  # fmt: skip


def table(result: dict) -> str:
    """One row a model."""
    rows = {name: values for name, values in result.items() if name != "about"}
    if not rows:
        return "no model was measured"
    names = [n for n in next(iter(rows.values())) if n.startswith(("hr", "ndcg", "mrr", "coverage", "gini", "novelty", "fit"))]
    show = lambda value: f"{value:>20.4f}" if value is not None else f"{'-':>20}"
    lines = [f"{'':<24}" + "".join(f"{n:>20}" for n in names)]
    if told := result["about"].get("reasons"):
        lines.append("reasons: " + ", ".join(f"{n.replace('_', ' ')} {v:.4g}" for n, v in told.items()))
    for method, drops in result["about"].get("evidence", {}).items():
        lines += [f"evidence by {method}: " + ", ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in drops.items())]
    return "\n".join(lines[:1] + [f"{name:<24}" + "".join(show(values.get(n)) for n in names) for name, values in rows.items()] + lines[1:])
