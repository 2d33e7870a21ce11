"""A finished run of the behaviour task, opened for use."""

from __future__ import annotations

import dataclasses
import pathlib

from rgjax.data.interactions import Interactions
from rgjax.data.shop_folder import Shop
from rgjax.nn.attention import anywhere
from rgjax.rank.sequence import SequenceRecommender
from rgjax.tasks.shop import shop_run
from rgjax.tasks.shop.behaviour import NAME, BehaviourTask


@dataclasses.dataclass(frozen=True)
class BehaviourRun:
    """`facts` is config.json; `params` are those to use (averaged where the run keeps an average); `step` is theirs."""

    folder: str
    facts: dict
    shop: Shop
    task: BehaviourTask
    params: dict
    step: int

    @classmethod
    def open(cls, folder: str | pathlib.Path, which: str = "best", dataset: str = "", source: str = "") -> BehaviourRun:
        """Loads the best or last checkpoint and the shop (or the copy of it in `dataset` or, if it is raw, in `source`).

        Raises UserError when one can't be read, or it is another shop.
        """
        facts = shop_run.facts_of(folder, NAME)
        shop = shop_run.shop_of(folder, facts, dataset, source, lambda shop: shop.fingerprint)
        facts["model"] = dataclasses.replace(facts["model"], attention=anywhere(facts["model"].attention))
        task = BehaviourTask(shop.interactions, facts["shop"], facts["behaviour"], facts["input"], facts["model"])
        params, step = shop_run.checkpoint(folder, facts, which, task.factory)
        return cls(str(folder), facts, shop, task, params, step)

    def recommender(self, seen: Interactions) -> SequenceRecommender:
        """The model, which knows users by the events `seen`."""
        return self.task.recommender(self.params, seen)
