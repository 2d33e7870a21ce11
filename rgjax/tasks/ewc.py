"""Elastic weight consolidation of a run: which earlier task is held on to, and what of it is measured before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import numpy as np

from rgjax import trees
from rgjax.config import TrainConfig
from rgjax.data.dataset import Dataset
from rgjax.errors import UserError
from rgjax.parallel import sharding
from rgjax.tasks.reason import ReasonTask, same_tokenizer
from rgjax.train import ewc


def check(config: TrainConfig, dataset: Dataset) -> None:
    """Raises UserError where --ewc has nothing to hold on to, or its other flags would do nothing."""
    if not config.ewc:
        if config.ewc_data:
            raise UserError(f"--ewc_data={config.ewc_data} is given and --ewc is 0; say how strongly with --ewc, or leave it out.")
        if config.ewc_examples != TrainConfig.ewc_examples:
            raise UserError(f"--ewc_examples={config.ewc_examples} is given and --ewc is 0; say how strongly with --ewc, or leave it out.")
        return
    if not config.init_from:
        raise UserError(f"--ewc={config.ewc:g} holds on to what a model has learnt and none is given; name its folder with --init_from.")
    if not config.ewc_data:
        raise UserError(f"--ewc={config.ewc:g} needs examples of the earlier task; name its dataset folder with --ewc_data.")
    if not ewc.exists(config.workdir):
        earlier = Dataset.open(config.ewc_data)
        same_tokenizer("ewc_data", earlier, dataset)
        earlier.source("train")


def extras(task: ReasonTask, config: TrainConfig, trained: Callable[[str], bool], mesh: jax.sharding.Mesh):
    """`Tuning.extras` of a run with --ewc: what is held, measured where the run begins and read from its workdir afterwards."""

    def made(weights: dict, begins: bool) -> dict:
        own, frozen = trees.divide(weights, trained)
        if begins and not ewc.exists(config.workdir):
            earlier = Dataset.open(config.ewc_data)
            rows = examples(task, earlier, config, mesh)
            found = {"fisher": ewc.fisher(task.factory, task.loss(0.0), own, frozen, rows), "anchor": own}
            ewc.save(config.workdir, found, {"dataset": earlier.fingerprint, "examples": str(_count(earlier, config))})
        return {"ewc": ewc.load(config.workdir, own)}

    return made


def examples(task: ReasonTask, dataset: Dataset, config: TrainConfig, mesh: jax.sharding.Mesh) -> Iterator[dict[str, jax.Array]]:
    """--ewc_examples training examples drawn by --seed, written down as the new run does, one a batch [1, T] on every device."""
    chosen = np.random.default_rng(config.seed).choice(dataset.count("train"), _count(dataset, config), replace=False)
    everywhere = sharding.replicated(mesh)
    source = dataset.source("train")
    for row in task.one_a_row((source[int(i)] for i in np.sort(chosen)), 1):
        yield {name: jax.make_array_from_process_local_data(everywhere, values, values.shape) for name, values in row.items()}


def _count(dataset: Dataset, config: TrainConfig) -> int:
    return min(config.ewc_examples, dataset.count("train"))
