"""What a run has forgotten: scores of earlier tasks by the model it began with and by the run, on the same examples."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib

import jax
import numpy as np

from rgjax.config import NO_ADAPTER, DecodeConfig, EvaluateConfig, ModelConfig
from rgjax.data.dataset import Dataset, folders
from rgjax.errors import UserError
from rgjax.metrics import bootstrap, suite
from rgjax.metrics.bootstrap import Metric
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks.evaluation import measure
from rgjax.tasks.reason import ReasonTask
from rgjax.tasks.run import COMPUTED, Earlier, Run, open_source
from rgjax.train.workdir import replace_text

FILE = "forgetting.json"
PROMPT = ("length", "target_length", "max_history", "history_order", "copy_slots", "prompt", "instruction")  # what decides an example's tokens
UNUSED = ("dataset", "outputs", "against", "weights")  # flags of an evaluation that mean nothing here


def report(config: EvaluateConfig, decode: DecodeConfig, progress) -> tuple[dict, str]:
    """(what forgetting.json holds, a table for the terminal) of the datasets of --earlier.

    A model that is a run reads each example as it was trained, by its own input flags; a Hugging Face folder has none, and reads
    as the run does. Both write with the run's decoding. Raises UserError for a dataset without the split or of another tokenizer,
    and for a model before that is missing, changed or of another vocabulary.
    """
    for name in UNUSED:
        if getattr(config, name) not in ("", "float"):
            raise UserError(f"--{name}={getattr(config, name)} means nothing beside --earlier; leave one of them out.")
    after = Run.open(config.workdir, config.checkpoint, config.base)
    datasets, before = _datasets(config, after), _before(config, after)
    tasks, tables = {}, []
    for dataset in datasets:
        examples = list(itertools.islice(dataset.examples(config.split), config.limit or None))
        sides = (_scores(run, decode, dataset, examples, config, progress) for run in (after, before))
        paired = bootstrap.paired(*sides, config.resamples)
        tables.append(f"{dataset.folder}, {config.split}, {len(examples)} examples; a: after, {after.folder}; b: before, {before.folder}")
        tables.append(suite.table(paired) + "\n")
        scores = {name: {"after": s.pop("a"), "before": s.pop("b"), **s} for name, s in paired.items()}
        tasks[str(dataset.folder)] = {"name": dataset.manifest["name"], "examples": len(examples), "scores": scores}
    alike = all(getattr(after.facts["input"], name) == getattr(before.facts["input"], name) for name in PROMPT)
    if not alike:
        tables.append("The two read different prompts, as each was trained; where reasons have other tokens too, perplexities do not compare.")
    result = {"earlier": tasks, "split": config.split, "same_prompts": alike, "decode": dataclasses.asdict(decode)}
    result |= {"after": {"model": after.folder, "checkpoint": after.step}, "before": {"model": before.folder, "checkpoint": before.step}}
    result |= {"synthetic": any(dataset.manifest.get("synthetic", False) for dataset in datasets)}
    folder = measure.made_folder(config)
    replace_text(folder / FILE, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result | {"output": str(folder / FILE)}, "\n".join(tables).rstrip()


def _datasets(config: EvaluateConfig, after: Run) -> list[Dataset]:
    found = [after.readable(folder, "--earlier") for folder in folders(config.earlier)]
    for dataset in found:
        dataset.source(config.split)
    return found


def _before(config: EvaluateConfig, after: Run) -> Run:
    """The model of --before, else the one that the run began with, opened like a run."""
    path, begun = config.before or after.facts["train"].init_from, not config.before
    if not path:
        raise UserError(f"{config.workdir} began with no model; name the one before with --before.")
    if not pathlib.Path(path).is_dir():
        raise UserError(f"The model before, {path}, is gone; restore it, or name its new place with --before.")
    source = open_source(path)
    if begun and source.fingerprint != after.facts["base_fingerprint"]:
        raise UserError(f"{path} is not what {config.workdir} began with (its weights differ); restore it, or name the model with --before.")
    tokenizer, computed = after.task.tokenizer, {name: getattr(after.facts["model"], name) for name in COMPUTED}
    model = source.configure(ModelConfig(**computed), set(), tokenizer)
    if isinstance(source, Earlier):
        return source.run
    task, mesh = ReasonTask(tokenizer, after.facts["input"], model, NO_ADAPTER), mesh_lib.make("data:1")
    params = source.params(task.factory, mesh, after.facts["train"].seed)  # rows of added tokens are those the run began with
    return Run(path, after.facts | {"model": model, "adapter": NO_ADAPTER}, task, params, 0, mesh)


def _scores(run: Run, decode: DecodeConfig, dataset: Dataset, examples: list[dict], config: EvaluateConfig, progress) -> dict[str, Metric]:
    """Every metric of the model on the first of a split's examples, still resamplable."""
    found = {"perplexity": perplexity(run, dataset, config.split, len(examples))}
    return found | suite.measure(examples, measure.write(run, decode, examples, progress), max_words=config.max_words)


def perplexity(run: Run, dataset: Dataset, split: str, count: int) -> Metric:
    """That of the references of the first `count` examples, per token, over which examples can be resampled."""
    sums, factory = run.task.loss(0.0), run.task.factory
    one = lambda params, row: sums(factory.model(params), jax.tree.map(lambda a: a[None], row), None)
    step = jax.jit(lambda params, rows: jax.lax.map(lambda row: one(params, row), rows))  # the fused kernel can't be vmapped
    parts = []
    for batch in run.task.one_a_row(itertools.islice(dataset.examples(split), count), run.task.input.batch_size):
        parts.append(jax.device_get(step(run.params, sharding.put(batch, run.mesh))))
    nll, tokens = (np.concatenate([part[name] for part in parts])[:count] for name in ("nll", "tokens"))
    return dataclasses.replace(mean := bootstrap.ratio(nll, tokens), reduce=lambda totals: np.exp(mean.reduce(totals)))
