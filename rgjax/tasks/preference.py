"""Tuning a run on pairs of reasons: what the model that it begins with says of them, and which of a pair a model finds likelier."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rgjax.config import OptimizerConfig
from rgjax.data import pairs as pairs_lib
from rgjax.data.dataset import Dataset
from rgjax.data.pairs import Pairs
from rgjax.data.streams import Streams
from rgjax.errors import UserError
from rgjax.models.adapted import PREPENDED
from rgjax.models.build import ModelFactory
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.reason import ReasonTask
from rgjax.tasks.run import Run, learned_from
from rgjax.train.preference import Preference, preference_sums, row_log_probs, together

FILE = "preference.safetensors"  # float32 [N, 2] by split: log probabilities of preferred and rejected reasons, before tuning
SPLITS = ("train", "val")


def check(sections: dict, shares: int) -> None:
    """Raises UserError where --preference has nothing to tune, or meets what it can't be joined with; `shares` parts of a batch are read apart."""
    optimizer, train, inputs = sections["optimizer"], sections["train"], sections["input"]
    if optimizer.preference == "none":
        if optimizer.preference_beta != OptimizerConfig.preference_beta:
            given = f"--preference_beta={optimizer.preference_beta:g}"
            raise UserError(f"{given} is given and --preference is not; add --preference=dpo, or leave it out.")
        return
    if not train.init_from:
        raise UserError(f"--preference={optimizer.preference} tunes a trained model and none is given; name its folder with --init_from.")
    if sections["adapter"].adapter in (*PREPENDED, "prefix"):
        kind = sections["adapter"].adapter
        raise UserError(f"--adapter={kind} changes what a reason follows from the first step on; take --adapter=lora, or another.")
    if inputs.batch_size % (2 * optimizer.accumulate * shares):
        parts = f"--batch_size={inputs.batch_size} in --accumulate={optimizer.accumulate} parts" + (f" of {shares} processes" if shares > 1 else "")
        raise UserError(f"{parts} splits pairs; take parts of an even number of rows.")
    others = {name: getattr(optimizer, name) for name in ("rdrop", "fgm", "code_contrast")}
    others |= {"distill": inputs.distill, "replay": inputs.replay, "ewc": train.ewc}
    others |= {"item_vectors": inputs.item_vectors, "user_vectors": inputs.user_vectors}
    others |= {"loss_on": "" if inputs.loss_on == "reason" else inputs.loss_on}
    others |= {"control_dropout": inputs.control_dropout, "row_length": inputs.row_length, "row_examples": inputs.row_examples}
    if odd := next((name for name, value in others.items() if value), ""):
        raise UserError(f"--{odd}={others[odd]} has no place in --preference={optimizer.preference}, where a reason stands alone; leave one out.")


def rows_to_deal(sections: dict) -> int:
    """How many of a batch's rows are dealt to streams: whole pairs where there are pairs."""
    return max(1, sections["input"].batch_size // together(sections["optimizer"]))


@dataclasses.dataclass(frozen=True)
class PairData:
    """The pairs of a run's dataset by split."""

    task: ReasonTask
    pairs: dict[str, Pairs]

    @classmethod
    def open(cls, task: ReasonTask, dataset: Dataset) -> PairData:
        """Of training and validation; raises UserError where one is no pair."""
        found = {split: Pairs(dataset, split, task.template, task.input, task.architecture) for split in SPLITS if dataset.count(split)}
        for pairs in found.values():
            pairs.check()
        return cls(task, found)

    def training(self, seed: int, share: tuple[int, int]) -> Streams:
        """The iterator of training batches, as `ReasonTask.training_data`."""
        return pairs_lib.train_batches(self.pairs["train"], self.task.input, seed=seed, process=share[0], processes=share[1])

    def validation(self, limit: int, share: tuple[int, int]) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the validation split; none where it is empty."""
        return pairs_lib.eval_batches(self.pairs["val"], self.task.input.batch_size, limit, *share) if "val" in self.pairs else iter(())

    def measure(self, workdir: str, initial: Callable[[], dict] | None, mesh: jax.sharding.Mesh) -> None:
        """Gives each text its log probability before tuning: from the run's folder, or under the parameters of `initial()`, and kept there.

        An adapter changes nothing yet where it begins, so the model it stands on is the reference. Raises UserError where the file is damaged.
        """
        path = pathlib.Path(workdir) / FILE
        if initial and not mesh_lib.anywhere(path.is_file()):
            weights = initial()
            factory = self.task.factory if "adapter" in weights else getattr(self.task.factory, "base", self.task.factory)
            rows = self.task.input.batch_size
            table = {split: log_probs(factory, weights, pairs, rows, mesh) for split, pairs in self.pairs.items()}
            if jax.process_index() == 0:
                save_file(table, f"{path}.tmp")
                os.replace(f"{path}.tmp", path)
            mesh_lib.meet("reference written")
        for split, table_N2 in read(path, {split: len(pairs) for split, pairs in self.pairs.items()}).items():
            self.pairs[split].reference_N2 = table_N2


def read(path: pathlib.Path, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """The table of a run; raises UserError where it is missing, damaged or of other pairs."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        raise UserError(f"{path} is missing or damaged; without it the run can't go on: restore it, or start a new --workdir.") from None
    if {split: table.shape for split, table in found.items()} != {split: (count, 2) for split, count in counts.items()}:
        raise UserError(f"{path} is of other pairs than the dataset's; give the run's own --dataset, or start a new --workdir.")
    return found


def loss(config: OptimizerConfig):
    """The step's loss function."""
    how = Preference(config.preference_beta, config.preference == "dpo_length")

    def sums(model, batch, key):
        return preference_sums(model, batch, key, how, config.label_smoothing if key is not None else 0.0)

    return sums


def log_probs(factory: ModelFactory, weights: dict, pairs: Pairs, rows: int, mesh: jax.sharding.Mesh) -> np.ndarray:
    """Log probabilities of each pair's two texts (nats), float32 [N, 2], `rows` at a time (even, as the mesh divides them), in every process."""

    def score(weights, batch):
        model = factory.model(weights)
        return row_log_probs(model(batch), *model.head(), batch["targets"], batch["weights"])

    run = jax.jit(sharding.on_mesh(score, jax.tree.map(lambda a: getattr(a, "sharding", None), weights)), out_shardings=sharding.replicated(mesh))
    batches = pairs_lib.eval_batches(pairs, rows, 0, *mesh_lib.share(mesh))
    found = [np.asarray(run(weights, sharding.put(batch, mesh))) for batch in batches]
    return np.concatenate(found).reshape(-1, 2)[: len(pairs)]


def accuracies(run: Run, dataset: Dataset, split: str) -> dict[str, float]:
    """Share of a split's pairs that each judge puts the right way round; one it finds even counts half. Examples of one text are passed over.

    Judges are the model's log probability of the whole text, and per token; what it gained over the model it began with, and how that one
    judged, where the run was tuned on this dataset and the split is one that it saw; and, to compare with, the longer and the shorter text in tokens.
    """
    task = run.task
    pairs = Pairs(dataset, split, task.template, task.input, task.architecture).only()
    now_N2 = log_probs(task.factory, run.params, pairs, max(2, task.input.batch_size // 2 * 2), run.mesh)
    tokens_N2 = np.array([[int(text["weights"].sum()) for text in pairs[i]] for i in range(len(pairs))])
    judges = {"likelier": now_N2, "likelier per token": now_N2 / tokens_N2, "longer": tokens_N2, "shorter": -tokens_N2}
    path, how = pathlib.Path(run.folder) / FILE, run.facts["optimizer"].preference
    if how != "none" and split in SPLITS and learned_from(run.facts, dataset):
        before_N2 = read(path, {s: dataset.count(s) for s in SPLITS if dataset.count(s)})[split]
        gained_N2 = now_N2 - before_N2
        judges = {"likelier than before": gained_N2 / tokens_N2 if how == "dpo_length" else gained_N2} | judges
        judges |= {"likelier before": before_N2, "likelier per token before": before_N2 / tokens_N2}
    return {name: float(np.mean((1 + np.sign(scores[:, 0] - scores[:, 1])) / 2)) for name, scores in judges.items()} | {"pairs": len(pairs)}
