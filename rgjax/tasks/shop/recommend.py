"""Users in; for each the best items of the catalogue, what drove them, and a reason that is checked against it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np

from rgjax.config import DecodeConfig, RecommendConfig
from rgjax.data import allowed
from rgjax.data import asked as asked_lib
from rgjax.data.asked import Asked
from rgjax.data.interactions import Catalogue, Interactions, attribute_values
from rgjax.errors import UserError
from rgjax.rank.evidence import Explainer
from rgjax.tasks.shop import shortlist
from rgjax.tasks.shop.behaviour_run import BehaviourRun
from rgjax.tasks.shop.reasons import Reasons
from rgjax.tasks.shop.shortlist import Best
from rgjax.train.workdir import replace_text

CHUNK = 256  # users whose reasons are written together


def recommend(config: RecommendConfig, decode: tuple[DecodeConfig, set[str]], progress: Callable[[int, int], None]) -> tuple[dict, str]:
    """(the summary printed last, a table of the first users); writes `config.output` whole or not at all.

    Raises UserError for users or items that are unknown, a list longer than what may be recommended, and files that can't be used.
    """
    target = pathlib.Path(config.output)
    if target.exists() and not config.overwrite:
        raise UserError(f"--output={config.output} exists; give another file, or --overwrite.")
    if config.reasons and config.evidence == "none":
        raise UserError("--reasons writes from the evidence, and --evidence=none finds none; choose another, or leave --reasons out.")
    run = BehaviourRun.open(config.workdir, config.checkpoint, config.dataset, config.source)
    shop = run.shop.interactions
    asked = asked_lib.read(config.input, shop, config.strangers, config.follow)
    may = allowed.allowed(config, shop.items)
    if config.top > may.sum():
        raise UserError(f"--top={config.top} is more than the {int(may.sum())} items that may be recommended; lower it.")
    if config.reason_weight and not config.reasons:
        raise UserError(f"--reason_weight={config.reason_weight:g} weighs reasons that a model wrote; give its --reasons.")
    # What reasons may lift into the list has to have one.
    wide = dataclasses.replace(config, top=min(2 * config.top, int(may.sum()))) if config.reason_weight else config
    writer = Reasons.open(wide, *decode)
    start = time.perf_counter()
    best = shortlist.best(run, asked, may, wide)
    ranked = time.perf_counter() - start
    lines, explainer = [], Explainer(run.recommender(asked.events))
    for at in range(0, len(asked.ids), CHUNK):
        chunk = [line(explainer, asked, best, user, wide) for user in range(at, min(at + CHUNK, len(asked.ids)))]
        lines += [_reordered(line, config) for line in writer.written(chunk, at)]
        progress(len(lines), len(asked.ids))
    seconds = time.perf_counter() - start
    replace_text(target, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    reasons = [r for line in lines for r in line["recommendations"]]
    return {
        "output": config.output, "users": len(lines), "recommendations": len(reasons), "strangers": int(asked.strangers.sum()),
        "weights": {name: round(weight, 4) for name, weight in [*best.weights.items(), *[("reason", config.reason_weight)][: bool(config.reasons)]]},
        "reasons_from_template": sum(r["reason_from"] == "template" for r in reasons), "seconds": round(seconds, 2),
        "ranking_seconds": round(ranked, 2), "users_per_second": round(len(lines) / seconds, 1), "synthetic": run.shop.synthetic,
    }, table(lines[: config.shown])  # fmt: skip


def line(explainer: Explainer, asked: Asked, best: Best, user: int, config: RecommendConfig) -> dict:
    """One output line but for the reasons; "known" holds the events that evidence numbers point at, until the reasons are written."""
    data, chosen = explainer.recommender.found.data, best.items[user][best.items[user] >= 0]
    stranger = bool(asked.strangers[user])
    events = np.zeros(0, np.int64) if stranger else explainer.events(user)["tokens"]
    given = None
    if config.evidence != "none" and not stranger:
        given = explainer.attribute(user, chosen, config.evidence)
    found = []
    for rank, item in enumerate(chosen):
        evidence = [] if given is None else _evidence(data, events, given[rank], int(item), max(config.evidence_events, config.reason_history))
        score = round(float(best.scores[user, rank]), 4)
        parts = {"popularity": score} if stranger else {name: round(float(values[user, rank]), 4) for name, values in best.parts.items()}
        found.append(
            {"rank": rank + 1, "item": data.items.ids[item], "title": data.items.titles[item], "attributes": data.items.attributes[item]}
            | {"score": score, "parts": parts, "share_of_events": float(f"{best.share[item]:.3g}"), "evidence": evidence}
        )
    if best.linear and not stranger:
        _add_neighbours(found, chosen, data.history(user), data.items, best.linear, config.evidence_events)
    return {"user": asked.ids[user], "stranger": stranger, "control": asked.controls[user], "recommendations": found}


def _reordered(line: dict, config: RecommendConfig) -> dict:
    """The line with its first `config.top` items by score + --reason_weight x the reason's part, which the score then holds."""
    if config.reason_weight:
        for found in line["recommendations"]:
            found["score"] = round(found["score"] + config.reason_weight * found["parts"]["reason"], 4)
        line["recommendations"].sort(key=lambda found: -found["score"])
        line["recommendations"] = [found | {"rank": rank} for rank, found in enumerate(line["recommendations"][: config.top], 1)]
    return line


def _evidence(data: Interactions, events_N: np.ndarray, given_N: np.ndarray, item: int, most: int) -> list[dict]:
    """The `most` events that speak for the item most: their share of all that speaks for it, and what they have in common with it."""
    weights = np.maximum(given_N, 0.0)
    total = weights.sum()
    order = [place for place in np.argsort(-weights, kind="stable") if weights[place] > 0]
    found, named = [], set()
    for place in order:
        event = int(events_N[place])
        if len(found) == most:
            break
        if event in named or event == item:  # an item that was had twice is named once
            continue
        named.add(event)
        entry = {"item": data.items.ids[event], "title": data.items.titles[event], "weight": round(float(weights[place] / total), 4)}
        found.append(entry | {"place": int(place), "shared": _shared(data, event, item), "attributes": data.items.attributes[event]})
    return found


def _add_neighbours(found: list[dict], items: np.ndarray, history: np.ndarray, catalogue: Catalogue, linear: Mapping, most: int) -> None:
    """Gives each of `found` its "neighbours": by part, the `most` items of the history that add most to that part's own score."""
    had = np.unique(history)
    for entry in found:
        entry["neighbours"] = {}
    for name, part in linear.items():
        for entry, adds in zip(found, part.added(had, items), strict=True):
            first = [n for n in np.argsort(-adds, kind="stable")[:most] if adds[n] > 0]
            named = [{"item": catalogue.ids[had[n]], "title": catalogue.titles[had[n]], "adds": float(f"{adds[n]:.4g}")} for n in first]
            entry["neighbours"][name] = {"score": float(f"{adds.sum():.4g}"), "items": named}


def _shared(data: Interactions, one: int, other: int) -> list[str]:
    """What two items have in common: 'name: value' of attributes, and 'relation: entity' of triples."""
    mine, theirs = data.items.attributes[one], data.items.attributes[other]
    common = [f"{name}: {v}" for name in mine for v in attribute_values(mine, name) if v in attribute_values(theirs, name)]
    none: frozenset = frozenset()
    named = lambda number: data.items.titles[number] if number < len(data.items) else data.entities[number - len(data.items)]
    both = data.facts.get(one, none) & data.facts.get(other, none)
    return common + [f"{data.relations[relation]}: {named(tail)}" for relation, tail in sorted(both)]


def table(lines: list[dict]) -> str:
    """A few users for a terminal."""
    out = []
    for line in lines:
        out.append(f"user {line['user'] or '(unnamed)'}" + (", a stranger" if line["stranger"] else ""))
        for found in line["recommendations"]:
            because = ", ".join(f"{e['title'] or e['item']} {e['weight']:.0%}" for e in found["evidence"])
            out.append(f"  {found['rank']:>2}. {found['title'] or found['item']:<44.44} {found['score']:>8.3f}  {because}")
            out.append(f"      {found['reason']}" + ("  [template]" if found["reason_from"] == "template" else ""))
    return "\n".join(out)
