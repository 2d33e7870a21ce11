"""A finished or running workdir, opened for use: its task, its parameters and its declared control codes."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import jax

from rgjax.config import DecodeConfig
from rgjax.data.dataset import Dataset
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.reason import ReasonTask
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import abstract_state
from rgjax.train.step import make_eval_step


@dataclasses.dataclass
class Run:
    """`facts` is config.json; `params` are those to use (averaged where the run keeps an average); `step` is theirs."""

    facts: dict
    task: ReasonTask
    params: dict
    step: int
    mesh: jax.sharding.Mesh

    @classmethod
    def open(cls, folder: str | pathlib.Path, which: str = "best") -> Run:
        """Loads the best or last checkpoint of a run; raises UserError when there is none or it can't be read."""
        facts = workdir.read(folder)
        mesh_lib.start(facts["train"].compilation_cache)
        task = ReasonTask(open_tokenizer(folder, facts), facts["input"], facts["model"])
        checkpoints = Checkpoints(f"{folder}/checkpoints", reading=True)
        step = checkpoints.best if which == "best" else checkpoints.latest
        if step is None:
            raise UserError(f"{folder} has no checkpoint yet; train until the first one (--save_every={facts['train'].save_every}).")
        mesh, tx = mesh_lib.make("data:1"), optimizer.make(facts["optimizer"], facts["train"].steps)
        abstract = abstract_state(task.factory, tx, mesh, facts["optimizer"].ema > 0, facts["train"].seed)
        params = checkpoints.load_params(step, abstract)
        checkpoints.close()
        return cls(facts, task, params, step, mesh)

    @property
    def controls(self) -> dict[str, list[str]]:
        """Declared control codes and their values."""
        return self.facts["controls"]

    def dataset(self, folder: str = "") -> Dataset:
        """As `open_dataset`."""
        return open_dataset(self.facts, folder)

    def perplexity(self, dataset: Dataset, split: str) -> dict[str, float]:
        """Of the references: `perplexity` and `loss` per target token (nats), `token_accuracy`, `target_tokens`."""
        step = make_eval_step(self.task.factory, self.task.loss(0.0))
        totals: dict[str, float] = {}
        for batch in self.task.evaluation_data(dataset, split):
            for name, value in jax.device_get(step(self.params, sharding.put(batch, self.mesh))).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        loss = totals["nll"] / totals["tokens"]
        accuracy = totals["correct"] / totals["tokens"]
        return {"perplexity": math.exp(loss), "loss": loss, "token_accuracy": accuracy, "target_tokens": totals["tokens"]}


def open_dataset(facts: dict, folder: str = "") -> Dataset:
    """The dataset a run was trained on, or the copy of it in `folder`; raises UserError when it is another."""
    dataset = Dataset.open(folder or facts["input"].dataset)
    if dataset.fingerprint != facts["dataset_fingerprint"]:
        raise UserError(f"{dataset.folder} is not the dataset of this run; give its own with --dataset.")
    return dataset


def open_tokenizer(folder: str | pathlib.Path, facts: dict) -> Tokenizer:
    """The tokenizer of a run; raises UserError when it is another than the run began with."""
    tokenizer = Tokenizer.load(pathlib.Path(folder) / "tokenizer")
    if tokenizer.vocab_size != facts["vocab_size"]:
        raise UserError(f"{folder}/tokenizer has {tokenizer.vocab_size} tokens, the model {facts['vocab_size']}; restore the run's own.")
    return tokenizer


def parse_control(text: str, declared: dict[str, list[str]]) -> dict[str, str]:
    """'style=concise,topic=price' as a dict; raises UserError naming the allowed names or values."""
    control = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, mark, value = part.partition("=")
        if not mark or name not in declared:
            listed = ", ".join(declared) or "none are declared"
            raise UserError(f"--control={text} names '{name}', which is no control code of this run; its codes: {listed}.")
        if value not in declared[name]:
            raise UserError(f"--control={text}: '{value}' is no value of {name}; use one of {', '.join(declared[name])}.")
        control[name] = value
    return control


def decode_config(facts: dict, given: DecodeConfig, explicit: set[str]) -> DecodeConfig:
    """The run's own decoding options, overridden by those given explicitly."""
    chosen = {name: getattr(given, name) for name in explicit}
    return dataclasses.replace(facts["decode"], **chosen)


def read_json(path: pathlib.Path) -> dict:
    """A JSON object from a file, {} where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
