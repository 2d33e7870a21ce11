"""A finished run of the behaviour task, opened for use."""

from __future__ import annotations

import dataclasses
import pathlib

from rgjax.data import shop_folder
from rgjax.data.interactions import Interactions
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.parallel import cluster
from rgjax.parallel import mesh as mesh_lib
from rgjax.rank.sequence import SequenceRecommender
from rgjax.tasks.behaviour import NAME, BehaviourTask
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import abstract_state


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
        facts = workdir.read(folder)
        if facts.get("task") != NAME:
            raise UserError(f"{folder} trained a generator of reasons, no model of behaviour; give a run of --task={NAME}.")
        cluster.start(facts["train"].compilation_cache)
        there = facts["shop"]
        if source and not there.source:
            raise UserError(f"--source={source} is for a run on raw data, and {folder} was trained on a prepared folder; give that by --dataset.")
        if not (dataset or source):
            dataset, source = facts["input"].dataset, there.source
        shop = shop_folder.open_any(dataset, there.layout, source)
        if shop.fingerprint != facts["dataset_fingerprint"]:
            raise UserError(f"{dataset or source} is not the shop that {folder} was trained on; restore it.")
        task = BehaviourTask(shop.interactions, there, facts["behaviour"], facts["input"], facts["model"])
        checkpoints = Checkpoints(f"{folder}/checkpoints", reading=True)
        step = checkpoints.best if which == "best" else checkpoints.latest
        if step is None:
            raise UserError(f"{folder} has no checkpoint yet; train until the first one (--save_every={facts['train'].save_every}).")
        tx = optimizer.make(facts["optimizer"], facts["train"].steps, facts["adapter"])
        abstract = abstract_state(task.factory, tx, mesh_lib.make("data:1"), facts["optimizer"].ema > 0, facts["train"].seed)
        params = checkpoints.load_params(step, abstract)
        checkpoints.close()
        return cls(str(folder), facts, shop, task, params, step)

    def recommender(self, seen: Interactions) -> SequenceRecommender:
        """The model, which knows users by the events `seen`."""
        return self.task.recommender(self.params, seen)
