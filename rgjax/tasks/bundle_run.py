"""A finished run of the bundle task, opened for use."""

from __future__ import annotations

import dataclasses
import pathlib

from rgjax.data import shop_folder
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.parallel import cluster
from rgjax.parallel import mesh as mesh_lib
from rgjax.rank.bundling import BundleRecommender
from rgjax.tasks import bundle
from rgjax.tasks.bundle import NAME, BundleTask
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import abstract_state


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
    def open(cls, folder: str | pathlib.Path, which: str = "best", dataset: str = "") -> BundleRun:
        """Loads the best or last checkpoint and the shop (or the copy of it in `dataset`); raises UserError when one can't be read."""
        facts = workdir.read(folder)
        if facts.get("task") != NAME:
            raise UserError(f"{folder} trained no model of bundles; give a run of --task={NAME}.")
        cluster.start(facts["train"].compilation_cache)
        there = facts["shop"]
        shop = shop_folder.open_any(dataset or facts["input"].dataset, there.layout, "" if dataset else there.source)
        if shop.bundles is None or bundle.fingerprint(shop) != facts["dataset_fingerprint"]:
            raise UserError(f"{dataset or facts['input'].dataset or there.source} is not the shop that {folder} was trained on; restore it.")
        space = bundle.read_space(folder, shop.interactions)
        if space is None:
            raise UserError(f"{folder} has no text space; restore it, or train again in another folder.")
        task = BundleTask(shop.interactions, shop.bundles, facts["bundle"], facts["input"], facts["model"], space)
        checkpoints, mesh = Checkpoints(f"{folder}/checkpoints", reading=True), mesh_lib.make("data:1")
        step = checkpoints.best if which == "best" else checkpoints.latest
        if step is None:
            raise UserError(f"{folder} has no checkpoint yet; train until the first one (--save_every={facts['train'].save_every}).")
        tuning = task.tuning(mesh, facts["train"].seed)
        tx = optimizer.make(facts["optimizer"], facts["train"].steps, tuning.config)
        abstract = abstract_state(task.factory, tx, mesh, facts["optimizer"].ema > 0, facts["train"].seed, tuning.trained)
        trained = checkpoints.load_params(step, abstract)
        checkpoints.close()
        return cls(str(folder), facts, shop, task, task.recommender(bundle.weights(task, trained, mesh)), step)
