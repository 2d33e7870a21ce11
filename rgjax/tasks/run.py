"""A finished or running workdir, opened for use: its task, its parameters and its declared control codes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp

from rgjax import trees
from rgjax.config import DecodeConfig, ModelConfig
from rgjax.data.dataset import Dataset
from rgjax.data.tokenizer import Tokenizer, control_token
from rgjax.errors import UserError
from rgjax.hf import families
from rgjax.hf.load import Pretrained
from rgjax.hf.table import Family
from rgjax.models import merge, quantized
from rgjax.models.adversaries import Adversaries
from rgjax.models.build import ModelFactory
from rgjax.nn.attention import anywhere
from rgjax.parallel import cluster, sharding
from rgjax.parallel import mesh as mesh_lib
from rgjax.tasks.reason import NAME, Liked, ReasonTask, ReasonWriter
from rgjax.tasks.writing import Reasons
from rgjax.train import adversarial, optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import abstract_state
from rgjax.train.step import make_eval_step
from rgjax.train.tuning import Tuning

BY_ITS_TEXTS = ("adversarial", "grpo")  # training that likelihood can't judge
LARGEST_LOSS = 700.0  # nats per token, whose exponential is still finite
COMPUTED = ("dropout", "dtype", "remat", "scan", "attention")  # options of a model that its weights leave open


@dataclasses.dataclass
class Run:
    """`facts` is config.json; `params` are those to use (averaged where the run keeps an average); `step` is theirs."""

    folder: str
    facts: dict
    task: ReasonTask
    params: dict
    step: int
    mesh: jax.sharding.Mesh
    weights: str = "float"
    base: str = ""  # where the folder that it began with lies, if that was moved
    discriminator: dict = dataclasses.field(default_factory=dict)  # its parameters, of adversarial training
    liked: Liked | None = None  # what chooses among reasons of --method=best

    @classmethod
    def open(cls, folder: str | pathlib.Path, which: str = "auto", base: str = "") -> Run:
        """Loads the best or last checkpoint of a run ('auto': the best, of one tuned by what it wrote the last), and what it did not train from the
        folder it began with (or `base`, if that was moved); raises UserError when there is none or it can't be read."""
        facts = workdir.read(folder)
        if facts.get("task", NAME) != NAME:
            raise UserError(f"{folder} trained a model of {facts['task']}, which writes no reasons; give a run of --task={NAME}.")
        cluster.alone(facts["train"].compilation_cache, facts["train"].optimization_level)
        facts["model"] = dataclasses.replace(facts["model"], attention=anywhere(facts["model"].attention))
        task = ReasonTask(open_tokenizer(folder, facts), facts["input"], facts["model"], facts["adapter"])
        if task.vectors and task.vectors.fingerprint() != facts["vectors_fingerprint"]:
            raise UserError(f"{folder} was trained with other vectors than {' and '.join(task.vectors.paths)} hold; restore those.")
        checkpoints = Checkpoints(f"{folder}/checkpoints", reading=True)
        against = facts["train"].task == "adversarial"
        by_likelihood = facts["train"].task not in BY_ITS_TEXTS
        step = checkpoints.best if which == "best" or (which == "auto" and by_likelihood) else checkpoints.latest
        if step is None:
            raise UserError(f"{folder} has no checkpoint yet; train until the first one (--save_every={facts['train'].save_every}).")
        mesh, tuning = mesh_lib.make("data:1"), Tuning(facts["adapter"])
        factory, tx = task.factory, optimizer.make(facts["optimizer"], facts["train"].steps, facts["adapter"])
        if against:
            factory = Adversaries.of(factory, facts["discriminator"])
            tx = adversarial.optimizers(facts["adversarial"], Reasons.of(task))
        abstract = abstract_state(factory, tx, mesh, facts["optimizer"].ema > 0, facts["train"].seed, tuning.trained)
        params = checkpoints.load_params(step, abstract)
        checkpoints.close()
        params, other = (params["generator"], params["discriminator"]) if against else (params, {})
        if tuning.freezes:
            own = original(folder, facts, base).params(task.factory.base, mesh, facts["train"].seed)
            params = trees.join(params, trees.divide(own, tuning.trained)[1])
        return cls(str(folder), facts, task, params, step, mesh, base=base, discriminator=other)

    def kept(self, weights: str) -> Run:
        """Itself ('float'), or with its matrices and tables in int8."""
        if weights == self.weights:
            return self
        params = quantized.in_int8(self.task.factory, self.params)
        return dataclasses.replace(self, task=self.task.in_int8(), params=params, weights=weights)

    def writer(self, decode: DecodeConfig) -> ReasonWriter:
        """Writes reasons as `ReasonTask.writer`."""
        return self.task.writer(self.params, decode, self.liked)

    def own(self) -> dict:
        """The model's own parameters, an adapter merged into them; raises UserError where that can't be."""
        return merge.merged(self.task.factory, self.params) if "adapter" in self.params else self.params

    def adapter_alone(self) -> dict:
        """The adapter's values; raises UserError when they are not all that tells the run from its base."""
        facts = self.facts
        if "adapter" not in self.params:
            raise UserError(f"{self.folder} has no adapter; leave --adapter_only out to export the model.")
        if facts["adapter"].unfreeze:
            raise UserError(f"{self.folder} also trained --unfreeze={facts['adapter'].unfreeze}; leave --adapter_only out to export all of it.")
        source = original(self.folder, facts, self.base)
        if isinstance(source, Pretrained) and source.folder.config["vocab_size"] < (facts["model"].embeddings or facts["vocab_size"]):
            raise UserError(f"{self.folder} has tokens that {source.folder.path} lacks; leave --adapter_only out to export both together.")
        return self.params["adapter"]

    @property
    def controls(self) -> dict[str, list[str]]:
        """Declared control codes and their values."""
        return self.facts["controls"]

    def codes_written(self) -> dict[str, dict[str, str]]:
        """Control codes, their values, and how each stands in a prompt."""
        form = "{}: {}".format if self.facts["input"].prompt == "chat" else control_token
        return {name: {value: form(name, value) for value in values} for name, values in self.controls.items()}

    def dataset(self, folder: str = "") -> Dataset:
        """As `open_dataset`."""
        return open_dataset(self.facts, folder)

    def readable(self, folder: str = "", flag: str = "--dataset") -> Dataset:
        """The run's own dataset, or any in the `folder` that a flag names; raises UserError where that has another tokenizer than the run."""
        if not folder:
            return self.dataset()
        dataset = Dataset.open(folder)
        if dataset.manifest["tokenizer"]["sha256"] != self.task.tokenizer.checksum():
            again = f"prepare it again with --tokenizer={self.folder}/tokenizer"
            raise UserError(f"{flag}={folder} has another tokenizer than {self.folder}; {again}.")
        return dataset

    def perplexity(self, dataset: Dataset, split: str) -> dict[str, float]:
        """Of the references alone, whatever was trained on: `perplexity` and `loss` per target token (nats), `token_accuracy`, `target_tokens`.

        Raises UserError for a split without examples, and for weights that went astray.
        """
        dataset.source(split)
        step = make_eval_step(self.task.factory, self.task.loss(0.0))
        totals: dict[str, float] = {}
        for batch in self.task.evaluation_data(dataset, split, loss_on="reason"):
            for name, value in jax.device_get(step(self.params, sharding.put(batch, self.mesh))).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        loss = totals["nll"] / totals["tokens"]
        check_loss(self.folder, loss)
        accuracy = totals["correct"] / totals["tokens"]
        return {"perplexity": math.exp(loss), "loss": loss, "token_accuracy": accuracy, "target_tokens": totals["tokens"]}


def check_loss(folder: str, loss: float) -> None:
    """Raises UserError for a loss of references (nats per token) that has no finite perplexity."""
    if not loss < LARGEST_LOSS:  # nor is nan
        raise UserError(f"{folder} gives references a loss of {loss:g}, so its training diverged; choose another run or --checkpoint.")


def open_dataset(facts: dict, folder: str = "") -> Dataset:
    """The dataset a run was trained on, the copy of it in `folder`, or the one there that its training reasons were written for; raises UserError
    when it is another."""
    dataset = Dataset.open(folder or facts["input"].dataset)
    if not learned_from(facts, dataset):
        raise UserError(f"{dataset.folder} is not the dataset of this run; give its own with --dataset.")
    return dataset


def reads_bare(facts: dict) -> bool:
    """Whether a run also learned from prompts without their control codes, itself or before it was tuned."""
    return facts.get("reads_bare", facts["input"].control_dropout > 0)


def learned_from(facts: dict, dataset: Dataset) -> bool:
    """Whether a run was trained on a dataset, or on what its training reasons were written anew for."""
    return dataset.fingerprint in (facts["dataset_fingerprint"], facts.get("origin_fingerprint"))


def open_tokenizer(folder: str | pathlib.Path, facts: dict) -> Tokenizer:
    """The tokenizer of a run; raises UserError when it is another than the run began with."""
    tokenizer = Tokenizer.load(pathlib.Path(folder) / "tokenizer")
    if tokenizer.vocab_size != facts["vocab_size"]:
        raise UserError(f"{folder}/tokenizer has {tokenizer.vocab_size} tokens, the model {facts['vocab_size']}; restore the run's own.")
    return tokenizer


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A run whose weights another begins with; used as `Pretrained`."""

    run: Run

    @property
    def fingerprint(self) -> str:
        """Changes with the weights."""
        return fingerprint(self.run.params)

    def configure(self, given: ModelConfig, explicit: set[str], tokenizer: Tokenizer) -> ModelConfig:
        """The run's model, computed as `given` says; raises UserError when an `explicit` option or the tokenizer contradicts it."""
        model, folder = self.run.facts["model"], self.run.folder
        if tokenizer.checksum() != self.run.task.tokenizer.checksum():
            raise UserError(f"The dataset's tokenizer is not that of {folder}; prepare the dataset again with --tokenizer={folder}/tokenizer.")
        for name in sorted(explicit - set(COMPUTED)):
            if getattr(given, name) != getattr(model, name):
                raise UserError(f"--{name}={getattr(given, name)} contradicts {folder}, which has {getattr(model, name)}; leave the flag out.")
        return dataclasses.replace(model, **{name: getattr(given, name) for name in explicit & set(COMPUTED)})

    def check(self, factory: ModelFactory) -> None:
        """Nothing can be missing, since the run was opened whole; raises UserError when its adapter is no change of weights."""
        if kind := merge.apart(self.run.task.factory):
            raise UserError(
                f"{self.run.folder} trained an adapter of kind '{kind}', which can't be worked into weights to begin with; begin with its own "
                "--init_from, and --adapter_from for the adapter."
            )

    def params(self, factory: ModelFactory, mesh: jax.sharding.Mesh, seed: int = 0) -> dict:
        """The parameters as float32 arrays on `mesh`."""
        return jax.device_put(self.run.own(), sharding.parameters(factory.abstract, mesh))


def fingerprint(params: dict) -> str:
    """sha256 over the parameters' names, shapes and bits (of which sums are taken that no division among devices changes)."""

    @jax.jit
    def sums(leaves):
        bits = [jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").reshape(-1).astype(jnp.uint32) for leaf in leaves]
        return [(jnp.sum(b, dtype=jnp.uint32), jnp.sum(b * (2 * jnp.arange(b.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)) for b in bits]

    paths, leaves = zip(*trees.flat(params), strict=True)
    found = [(path, leaf.shape, int(one), int(other)) for path, leaf, (one, other) in zip(paths, leaves, sums(leaves), strict=True)]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def family_of(run: Run, name: str = "auto") -> Family:
    """The Hugging Face family a run is written as: the named one, or what it began with, or the first that fits."""
    begun = run.base or run.facts["train"].init_from
    if name == "auto" and begun and (pathlib.Path(begun) / "config.json").is_file() and not workdir.is_run(begun):
        name = read_json(pathlib.Path(begun) / "config.json").get("model_type", "auto")
    return families.choose(run.facts["model"], name)


def open_source(path: str) -> Pretrained | Earlier:
    """What --init_from names: a run's folder or a Hugging Face folder; raises UserError when it is neither, or is unusable."""
    if not workdir.is_run(path):
        return Pretrained.open(path)
    if jax.process_count() > 1:
        raise UserError(f"{path} is a run, which one process alone can begin with; export it with launch.export, and give that folder.")
    return Earlier(Run.open(path))


def original(folder: str | pathlib.Path, facts: dict, moved: str = "") -> Pretrained | Earlier:
    """What a run began with, for the part of it that was not trained; raises UserError when it is gone or has changed since."""
    path = moved or facts["train"].init_from
    if not pathlib.Path(path).is_dir():
        raise UserError(f"{folder} was trained on the frozen weights of {path}, which is gone; restore it, or name its new place with --base.")
    source = open_source(path)
    if source.fingerprint != facts["base_fingerprint"]:
        raise UserError(f"{path} is not what {folder} was trained on (its weights differ); restore it, or name the right folder with --base.")
    return source


def read_json(path: pathlib.Path) -> dict:
    """A JSON object from a file, {} where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
