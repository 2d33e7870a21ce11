"""A finished run of the bundle task, opened for use."""

from __future__ import annotations

import dataclasses
import pathlib

from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.parallel import mesh as mesh_lib
from rgjax.rank.bundling import BundleRecommender
from rgjax.tasks.shop import bundle, shop_run
from rgjax.tasks.shop.bundle import NAME, BundleTask


@dataclasses.dataclass(frozen=True)
class BundleRun:
    """`facts` is config.json; `recommender` has the weights of checkpoint `step` (averaged where the run keeps an average)."""

    folder: str
    facts: dict
    shop: Shop
    task: BundleTask
    recommender: BundleRecommender
    step: int

    @classmethod
    def open(cls, folder: str | pathlib.Path, which: str = "best", dataset: str = "", source: str = "") -> BundleRun:
        """Loads the best or last checkpoint and the shop (or the copy of it in `dataset` or, if it is raw, in `source`).

        Raises UserError when one can't be read, or it is another shop.
        """
        facts, mesh = shop_run.facts_of(folder, NAME), mesh_lib.make("data:1")
        shop = shop_run.shop_of(folder, facts, dataset, source, bundle.fingerprint)
        space = bundle.read_space(folder, shop.interactions)
        if space is None:
            raise UserError(f"{folder} has no text space; restore it, or train again in another folder.")
        task = BundleTask(shop.interactions, shop.bundles, facts["bundle"], facts["input"], facts["model"], space)
        trained, step = shop_run.checkpoint(folder, facts, which, task.factory, task.tuning(mesh, facts["train"].seed))
        return cls(str(folder), facts, shop, task, task.recommender(bundle.weights(task, trained, mesh)), step)
