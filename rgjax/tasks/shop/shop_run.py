"""What finished runs on a shop have in common: their facts, the shop they were trained on, and the weights of a checkpoint."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from rgjax.data import shop_folder
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.parallel import cluster
from rgjax.parallel import mesh as mesh_lib
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import abstract_state
from rgjax.train.tuning import ALL, Tuning


def facts_of(folder: str | pathlib.Path, task: str) -> dict:
    """The run's config.json; raises UserError unless it is of --task=`task`."""
    facts = workdir.read(folder)
    if (found := facts.get("task", "reason")) != task:
        raise UserError(f"{folder} is a run of --task={found}; give one of --task={task}.")
    cluster.alone(facts["train"].compilation_cache, facts["train"].optimization_level)
    return facts


def shop_of(folder: str | pathlib.Path, facts: dict, dataset: str, source: str, fingerprint: Callable[[Shop], str]) -> Shop:
    """The shop, or the copy of it in `dataset` or, if it is raw, in `source`; raises UserError when it can't be read, or it is another one."""
    there = facts["shop"]
    if source and not there.source:
        raise UserError(f"--source={source} is for a run on raw data, and {folder} was trained on a prepared folder; give that by --dataset.")
    if not (dataset or source):
        dataset, source = facts["input"].dataset, there.source
    shop = shop_folder.open_any(dataset, there.layout, source)
    if fingerprint(shop) != facts["dataset_fingerprint"]:
        raise UserError(f"{dataset or source} is not the shop that {folder} was trained on; restore it.")
    return shop


def checkpoint(folder: str | pathlib.Path, facts: dict, which: str, factory: ModelFactory, tuning: Tuning = ALL) -> tuple[dict, int]:
    """(the trained parameters, averaged where the run keeps an average, the step) of the best or last checkpoint.

    Raises UserError when there is none or it can't be read.
    """
    checkpoints = Checkpoints(f"{folder}/checkpoints", reading=True)
    step = checkpoints.best if which in ("best", "auto") else checkpoints.latest
    if step is None:
        raise UserError(f"{folder} has no checkpoint yet; train until the first one (--save_every={facts['train'].save_every}).")
    config = facts["adapter"] if tuning is ALL else tuning.config
    tx = optimizer.make(facts["optimizer"], facts["train"].steps, config)
    abstract = abstract_state(factory, tx, mesh_lib.make("data:1"), facts["optimizer"].ema > 0, facts["train"].seed, tuning.trained)
    params = checkpoints.load_params(step, abstract)
    checkpoints.close()
    return params, step
