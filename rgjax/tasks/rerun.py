"""One training step of a run, put together again around its last checkpoint, or what it began with; nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from rgjax import trees
from rgjax.config import OptimizerConfig
from rgjax.data.dataset import Dataset
from rgjax.errors import UserError
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.reason import NAME, ReasonTask
from rgjax.tasks.run import open_tokenizer, original
from rgjax.tasks.training import loss_of, tuning_of
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.preference import together
from rgjax.train.state import TrainState, abstract_state, create
from rgjax.train.step import make_loss
from rgjax.train.tuning import Tuning


class Step(NamedTuple):
    """`loss(params, fixed, batch, key) -> (sum, sums)` of one micro-batch; `params` are those that the run trains."""

    number: int  # of the checkpoint, 0 where there is none yet
    state: TrainState
    fixed: dict
    loss: Callable[..., tuple[jax.Array, dict]]
    config: OptimizerConfig

    @classmethod
    def open(cls, folder: str) -> Step:
        """The step of a run on its last checkpoint, or on what it began with where it has none, on one device and with its layers one by one.

        Raises UserError where one can't be made.
        """
        facts = workdir.read(folder)
        if (what := facts["train"].task) != NAME:
            raise UserError(f"{folder} is a run of --task={what}, and only steps of --task={NAME} can be rerun; give another --workdir.")
        mesh = mesh_lib.make("data:1")
        model = dataclasses.replace(facts["model"], scan=False, remat="none")
        task = ReasonTask(open_tokenizer(folder, facts), facts["input"], model, facts["adapter"])
        checkpoints = Checkpoints(f"{folder}/checkpoints", reading=True)
        number = checkpoints.latest or 0
        begun = bool(facts["train"].init_from) and not number
        source = original(folder, facts) if begun or Tuning(facts["adapter"]).freezes else None
        tuning = tuning_of(task, facts, source, mesh)
        config, train = facts["optimizer"], facts["train"]
        tx = optimizer.make(config, train.steps, facts["adapter"])
        kind = (task.factory, tx, mesh, config.ema > 0, train.seed)
        if number:
            state = checkpoints.load(number, abstract_state(*kind, tuning.trained))
        else:
            state, _ = create(*kind, tuning.initial and tuning.initial(), tuning.trained)
        checkpoints.close()
        frozen = trees.divide(tuning.initial(), tuning.trained)[1] if tuning.freezes else {}
        fixed = {"weights": frozen, **tuning.extras(trees.join(state.params, frozen), False)}
        teacher = task.teacher(Dataset.open(facts["input"].dataset), config.distill_temperature) if facts["input"].distill else None
        loss = loss_of(task, config, teacher, facts["controls"])
        return cls(number, state, fixed, make_loss(task.factory, loss, tuning.penalty), config)

    def key(self, step: int, micro: int) -> jax.Array:
        """The dropout key of a micro-batch of the step numbered `step`."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(self.state.key), step - 1), micro)

    def micro_batches(self, rows: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """What each accumulation step read of the processes' rows."""
        parted = [sharding.micro_batches(of, self.config.accumulate, together(self.config)) for of in rows]
        return [{k: np.concatenate([of[k][i] for of in parted]) for k in parted[0]} for i in range(self.config.accumulate)]
