"""Trains a reason generator, or continues the run in --workdir.

    python -m launch.train --flagfile=configs/demo.cfg --dataset=DATASET --workdir=W

An existing workdir is continued from its last checkpoint; flags that are left out then keep the run's values. Decoding flags
are kept with the run, as what launch.generate and launch.evaluate do by default.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil

from absl import flags

from launch import app
from rgjax.config import DecodeConfig, InputConfig, ModelConfig, OptimizerConfig, TrainConfig


def configs() -> dict:
    """The four sections from the flags; those not given come from the workdir's own run, if there is one."""
    from rgjax.train import workdir

    given = {name: app.read(cls) for name, cls in workdir.SECTIONS.items()}
    app.require(workdir=given["train"].workdir)
    if not workdir.exists(given["train"].workdir):
        app.require(dataset=given["input"].dataset)
        return given
    stored = workdir.read(given["train"].workdir)
    for name, cls in workdir.SECTIONS.items():
        explicit = {f: getattr(given[name], f) for f in app.given(cls)}
        given[name] = dataclasses.replace(stored[name], **explicit)
    return given


def main() -> dict:
    """Builds the run from the flags and trains it; returns the summary printed last."""
    from rgjax.parallel import mesh as mesh_lib

    sections = configs()
    train, inputs = sections["train"], sections["input"]
    mesh_lib.start(train.compilation_cache)

    import jax

    from rgjax.parallel import sharding
    from rgjax.tasks import reason
    from rgjax.train import workdir
    from rgjax.train.loop import Loop

    mesh = mesh_lib.make(train.mesh)
    sharding.check_batch(inputs.batch_size, mesh, sections["optimizer"].accumulate)
    dataset, tokenizer = reason.dataset_tokenizer(inputs.dataset)
    task = reason.ReasonTask(tokenizer, inputs, sections["model"])
    facts = {**sections, "task": reason.NAME, "dataset_fingerprint": dataset.fingerprint, "vocab_size": tokenizer.vocab_size}
    facts |= {"synthetic": dataset.manifest.get("synthetic", False), "dataset_name": dataset.manifest["name"], "controls": dataset.controls}
    data = task.training_data(dataset, train.seed)
    if workdir.exists(train.workdir):
        workdir.check_same(train.workdir, workdir.read(train.workdir), facts)
    if jax.process_index() == 0:
        workdir.write(train.workdir, facts, flags.FLAGS.flags_into_string())
        shutil.copytree(dataset.tokenizer_folder, f"{train.workdir}/tokenizer", dirs_exist_ok=True)
    split = "val" if dataset.count("val") else "test"
    shown = list(itertools.islice(dataset.examples(split), train.samples)) if dataset.count(split) else []

    def sample(params: dict, step: int) -> list[dict]:
        if not shown:
            return []
        decode = DecodeConfig(decode_batch=len(shown), max_new_tokens=inputs.target_length)
        return reason.sample_rows(shown, task.writer(params, decode).write(shown), step)

    validation = lambda: task.evaluation_data(dataset, split, train.eval_batches)  # noqa: E731
    loss = task.loss(sections["optimizer"].label_smoothing)
    return Loop(task.factory, loss, data, validation, sample, train, sections["optimizer"], mesh).run()


if __name__ == "__main__":
    app.define(InputConfig, ModelConfig, OptimizerConfig, TrainConfig, DecodeConfig)
    app.run(main, __doc__)
