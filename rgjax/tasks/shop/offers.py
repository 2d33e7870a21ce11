"""Bundles offered by a trained model of them: one completed, one built under limits, or those of the shop that suit a user."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from rgjax.config import DecodeConfig, OfferConfig, RecommendConfig
from rgjax.data import allowed, asked_bundles
from rgjax.data.asked_bundles import AskedBundle
from rgjax.data.bundles import NOBODY
from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import bundle_builder, content
from rgjax.rank.bundle_builder import Limits
from rgjax.tasks.shop.bundle_run import BundleRun
from rgjax.tasks.shop.intents import Intents
from rgjax.train.workdir import replace_text

_NEEDS = {"complete": "items", "build": "", "choose": "user"}  # of a line
Made = tuple[dict, list[int], str]  # what is told of an offer, the bundle it makes, and its intent where that is written already
_GONE = -1e9  # scores below it are of items that are not offered
_ITEMS_ONLY = {"strangers", "evidence", "evidence_events", "reason_history"}  # of models of behaviour
_BUILD_ONLY = {"size", "budget", "offer_beams"}


def check_flags(given: set[str], offer: str) -> None:
    """Raises UserError for the first flag among `given` that means nothing to this kind of offer."""
    surplus = given & (_ITEMS_ONLY | (set() if offer == "build" else _BUILD_ONLY) | ({"repeat"} if offer == "choose" else set()))
    if surplus:
        raise UserError(f"--{min(surplus)} means nothing to --offer={offer} of a run of --task=bundle; leave it out.")


def recommend(config: RecommendConfig, offer: OfferConfig, decode: tuple[DecodeConfig, set[str]], progress: Callable[[int, int], None]):
    """(the summary printed last, a table of the first lines); writes `config.output` whole or not at all.

    Raises UserError for unknown users or items, limits that no bundle meets, and files that can't be used.
    """
    target = pathlib.Path(config.output)
    if target.exists() and not config.overwrite:
        raise UserError(f"--output={config.output} exists; give another file, or --overwrite.")
    run = BundleRun.open(config.workdir, config.checkpoint, config.dataset, config.source)
    asked = asked_bundles.read(config.input, run.shop.interactions, _NEEDS[offer.offer])
    maker = _Offers(run, config, offer, Intents.open(config, *decode, run.shop.interactions.items, run.shop.bundles))
    start, lines = time.perf_counter(), []
    for line in asked:
        lines.append(maker.line(line))
        progress(len(lines), len(asked))
    seconds = time.perf_counter() - start
    replace_text(target, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    offers = [found for line in lines for found in line["offers"]]
    return {
        "output": config.output, "offer": offer.offer, "lines": len(lines), "offers": len(offers),
        "reasons_from": {name: sum(found.get("reason_from") == name for found in offers) for name in ("model", "shop", "template")},
        "seconds": round(seconds, 2), "lines_per_second": round(len(lines) / seconds, 1), "synthetic": run.shop.synthetic,
    }, table(lines[: config.shown])  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class _Offers:
    """Makes one output line at a time."""

    run: BundleRun
    config: RecommendConfig
    offer: OfferConfig
    writer: Intents

    def __post_init__(self):
        if self.offer.budget and np.isnan(self.prices).all():
            raise UserError(f"--budget={self.offer.budget:g} needs prices and the shop has none; add a column price, or leave it out.")
        most = self.run.task.config.set_length + 1  # the last is added to a set that is read
        if self.offer.offer == "build" and self.offer.size > most:
            raise UserError(f"--size={self.offer.size} is more than the {most} items that the run's --set_length allows; lower it.")

    @property
    def data(self) -> Interactions:
        """The shop's."""
        return self.run.shop.interactions

    @functools.cached_property
    def prices(self) -> np.ndarray:
        """float64 [I], NaN where unknown."""
        return bundle_builder.prices(self.data)

    @functools.cached_property
    def allowed(self) -> np.ndarray:
        """bool [I] by the flags."""
        return allowed.allowed(self.config, self.data.items)

    @functools.cached_property
    def sold(self) -> list[dict[str, np.ndarray]]:
        """What the model reads of each of the shop's bundles."""
        sets, bundles = self.run.task.sets, self.run.shop.bundles
        return [sets.row(bundles.members(b), NOBODY) for b in range(len(bundles))]

    def line(self, asked: AskedBundle) -> dict:
        """The output line for one of the input."""
        made = {"complete": self._complete, "build": self._build, "choose": self._choose}[self.offer.offer](asked)
        reasons = self.writer.of([(bundle, written) for _, bundle, written in made])
        offers = [{"rank": rank, **found, **reason} for rank, ((found, *_), reason) in enumerate(zip(made, reasons, strict=True), 1)]
        user = self.data.users[asked.user] if asked.user >= 0 else ""
        return {"user": user, "items": self._shown(asked.items), "intent": asked.intent, "offers": offers}

    def _query(self, text: str) -> np.ndarray | None:
        return self.run.task.space.of([content.terms(text, {})])[0] if text else None

    def _row(self, items: np.ndarray, asked: AskedBundle) -> dict:
        return self.run.task.sets.row(items, asked.user, query=self._query(asked.intent))

    def _free(self, asked: AskedBundle) -> np.ndarray:
        """bool [I]: what may be offered; what the user had is left out unless --repeat."""
        free = self.allowed.copy()
        free[asked.items] = False
        if not self.config.repeat:
            free[self.run.task.sets.items_of(asked.user)] = False
        return free

    def _complete(self, asked: AskedBundle) -> list[Made]:
        """The best items beside the given ones; evidence is what the score loses without each of these."""
        recommender, free = self.run.recommender, self._free(asked)
        if self.config.top > free.sum():
            raise UserError(f"{asked.where}: --top={self.config.top} is more than the {int(free.sum())} items that may be offered; lower it.")
        row = self._row(asked.items, asked)
        scores = np.where(free, recommender.completions([row])[0], 2 * _GONE)
        best = np.argsort(-scores, kind="stable")[: self.config.top]
        parts = recommender.explained(row, best)
        lacking = recommender.completions([self._row(np.delete(asked.items, n), asked) for n in range(len(asked.items))])
        found = []
        for item, part in zip(best, parts, strict=True):
            because = [
                self._named(one) | {"drop": round(float(scores[item] - others[item]), 4)}
                for one, others in zip(asked.items, lacking, strict=True)
            ]
            because.sort(key=lambda entry: -entry["drop"])
            told = {"score": round(float(scores[item]), 4), "parts": {n: round(v, 4) for n, v in part.items()}, "evidence": because}
            found.append((self._shown([item])[0] | told, [int(i) for i in np.append(asked.items, item)], ""))
        return found

    def _build(self, asked: AskedBundle) -> list[Made]:
        limits = Limits(self.offer.size, self._free(asked), self.prices, self.offer.budget)
        if len(asked.items) >= limits.size:
            raise UserError(f"{asked.where} names {len(asked.items)} items, and --size={limits.size} leaves no room for others; raise it.")
        if limits.budget and np.isnan(self.prices[asked.items]).any():
            raise UserError(f"{asked.where}: an item given has no price, so --budget={limits.budget:g} can't be kept; leave one of them out.")
        query = self._query(asked.intent)
        if not len(asked.items) and not len(self.run.task.sets.items_of(asked.user)) and (query is None or not query.any()):
            raise UserError(f"{asked.where} names nothing that the shop's items are described by or its users had; name items too.")
        score = lambda sets: self.run.recommender.completions([self._row(items, asked) for items in sets])
        try:
            built = bundle_builder.build(score, asked.items, limits, self.offer.offer_beams, self.config.top)
        except UserError as error:
            raise UserError(f"{asked.where}: {error}.") from None
        found = []
        for one in built:
            told = {"items": self._shown(one.items), "price": self._total(one.items), "log_probability": round(one.score, 4)}
            found.append((told, one.items.tolist(), ""))
        return found

    def _choose(self, asked: AskedBundle) -> list[Made]:
        """The shop's bundles by how they suit the user; those that they have, or that hold what may not be offered, are left out."""
        sets, bundles = self.run.task.sets, self.run.shop.bundles
        if len(asked.items) or asked.intent:
            raise UserError(f'{asked.where}: --offer=choose goes by the user alone; leave "items" and "intent" out, or use --offer=build.')
        if not len(sets.items_of(asked.user)):
            raise UserError(f"{asked.where}: nothing is known of user '{self.data.users[asked.user]}'; use --offer=build with items or an intent.")
        scores = self.run.recommender.for_users([self._row(np.zeros(0, int), asked)], self.sold)[0]
        scores[(bundles.items @ ~self.allowed) > 0] = 2 * _GONE
        scores[bundles.pairs[bundles.pairs[:, 0] == asked.user, 1]] = 2 * _GONE
        best = [int(b) for b in np.argsort(-scores, kind="stable")[: self.config.top] if scores[b] > _GONE]
        own = set(sets.items_of(asked.user).tolist())
        found = []
        for b in best:
            members = bundles.members(b)
            told = {"bundle": bundles.ids[b], "items": self._shown(members), "price": self._total(members), "score": round(float(scores[b]), 4)}
            told["had"] = [self.data.items.ids[i] for i in members if int(i) in own]
            found.append((told, members.tolist(), bundles.intents[b]))
        return found

    def _shown(self, items) -> list[dict]:
        attributes = lambda item: self.writer.read(self.data.items.attributes[item])
        return [self._named(item) | {"price": _price(self.prices[item]), "attributes": attributes(item)} for item in items]

    def _named(self, item: int) -> dict:
        return {"item": self.data.items.ids[item], "title": self.writer.read(self.data.items.titles[item])}

    def _total(self, items: np.ndarray) -> float | None:
        return _price(self.prices[items].sum())


def _price(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def table(lines: list[dict]) -> str:
    """A few lines for a terminal."""
    out, name = [], lambda shown: shown["title"] or shown["item"]
    for line in lines:
        asked = (
            [f"user {line['user']}"] * bool(line["user"])
            + [f'"{line["intent"]}"'] * bool(line["intent"])
            + [f"{name(one):.40}" for one in line["items"]]
        )
        out.append("for " + " + ".join(asked))
        for found in line["offers"]:
            title = " + ".join(f"{name(one):.36}" for one in found["items"]) if "items" in found else name(found)
            score = found["score"] if "score" in found else found["log_probability"]
            out.append(f"  {found['rank']:>2}. {title:<78.120} {score:>8.3f}" + (f"  {found['price']:.2f}" if found["price"] is not None else ""))
            out.append(f"      {found['reason']}  [{found['reason_from']}]")
    return "\n".join(out)
