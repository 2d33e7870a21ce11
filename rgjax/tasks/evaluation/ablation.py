"""Whether precomputed vectors help at all: the loss on the references with them, and with zeros, others' and random ones instead."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import EvaluateConfig
from rgjax.errors import UserError
from rgjax.metrics import bootstrap
from rgjax.tasks.evaluation import measure
from rgjax.tasks.reason import ReasonTask
from rgjax.tasks.run import Run, check_loss
from rgjax.train.workdir import replace_text

MODES = ("given", "zero", "shuffle", "random")
ROWS = 32
UNUSED = ("weights", "outputs", "against", "earlier", "before")  # flags of an evaluation that mean nothing here


def vectors(config: EvaluateConfig, progress) -> tuple[dict, str]:
    """(what ablation.json holds, a table for the terminal) of a run with --adapter=vectors on a split.

    The loss of an example is the mean over its target tokens, in nats; differences are over examples, with 95 % bootstrap intervals.
    Raises UserError for a run that reads no vectors.
    """
    for name in UNUSED:
        if getattr(config, name) not in ("", "float"):
            raise UserError(f"--{name}={getattr(config, name)} means nothing beside --ablate_vectors; leave one of them out.")
    run = Run.open(config.workdir, config.checkpoint, config.base)
    if run.task.vectors is None:
        raise UserError(f"--ablate_vectors needs a run that reads vectors, and {config.workdir} has none; train one with --adapter=vectors.")
    dataset = run.dataset(config.dataset)
    count = min(config.limit or dataset.count(config.split), dataset.count(config.split))
    losses, facts = {}, run.facts
    for n, mode in enumerate(MODES):
        changed = dataclasses.replace(facts["input"], vectors_as=mode)
        task = ReasonTask(run.task.tokenizer, changed, facts["model"], facts["adapter"])
        losses[mode] = example_losses(task, run.params, task.one_a_row(itertools.islice(dataset.examples(config.split), count), ROWS))[:count]
        progress(n + 1, len(MODES))
    own = facts["input"].vectors_as
    found = {"workdir": config.workdir, "split": config.split, "examples": count, "trained_as": own, "modes": {}}
    for mode, values in losses.items():
        check_loss(config.workdir, loss := float(values.mean()))
        one = {"loss": loss, "perplexity": math.exp(loss)}
        if mode != own:
            compared = bootstrap.paired({"loss": bootstrap.mean(values)}, {"loss": bootstrap.mean(losses[own])}, config.resamples)["loss"]
            one |= {"worse_by": {"value": compared["difference"], "low": compared["low"], "high": compared["high"]}}
        found["modes"][mode] = one
    folder = measure.made_folder(config)
    replace_text(folder / "ablation.json", json.dumps(found, indent=1) + "\n")
    return found, _table(found)


def example_losses(task: ReasonTask, params: dict, batches: Iterable[dict]) -> np.ndarray:
    """Mean negative log-likelihood per target token of each row's one example, float32 [rows of all batches], without dropout."""
    loss = task.loss(0.0)

    @jax.jit
    def rows(params, batch):
        one = lambda row: loss(task.factory.model(params), jax.tree.map(lambda x: x[None], row), None)
        sums = jax.lax.map(one, batch)
        return sums["nll"] / jnp.maximum(sums["tokens"], 1)

    return np.concatenate([np.asarray(rows(params, batch)) for batch in batches])


def _table(found: dict) -> str:
    lines = [f"{'vectors':<10}{'loss':>9}{'perplexity':>12}   more loss than with those it was trained with ({found['trained_as']})"]
    for mode, one in found["modes"].items():
        more = one.get("worse_by")
        span = f"{more['value']:+.4f} [{more['low']:+.4f}, {more['high']:+.4f}]" if more else ""
        lines.append(f"{mode:<10}{one['loss']:>9.4f}{one['perplexity']:>12.3f}   {span}")
    return "\n".join(lines)
