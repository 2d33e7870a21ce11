"""Trains a reason generator, or continues the run in --workdir.

    python -m launch.train --flagfile=configs/demo.cfg --dataset=DATASET --workdir=W
    python -m launch.train --init_from=FOLDER --dataset=DATASET --workdir=W    (begins with a Hugging Face model)

An existing workdir is continued from its last checkpoint; flags that are left out then keep the run's values. Decoding flags
are kept with the run, as what launch.generate and launch.evaluate do by default.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys

from absl import flags

from launch import app
from rgjax.config import DecodeConfig, InputConfig, ModelConfig, OptimizerConfig, TrainConfig
from rgjax.errors import UserError


def configs() -> tuple[dict, dict | None]:
    """The sections from the flags, and the workdir's own run if there is one: what is not given comes from it."""
    from rgjax.data import choices
    from rgjax.train import workdir

    given = {name: app.read(cls) for name, cls in workdir.SECTIONS.items()}
    app.require(workdir=given["train"].workdir)
    if not workdir.exists(given["train"].workdir):
        app.require(dataset=given["input"].dataset)
        return given | {"input": choices.settled(given["input"], app.given(InputConfig))}, None
    stored = workdir.read(given["train"].workdir)
    for name, cls in workdir.SECTIONS.items():
        explicit = {f: getattr(given[name], f) for f in app.given(cls)}
        given[name] = dataclasses.replace(stored[name], **explicit)
    return given, stored


def main() -> dict | None:
    """Builds the run from the flags and trains it; returns the summary printed last, which is the first process's to print."""
    from rgjax.parallel import mesh as mesh_lib

    sections, stored = configs()
    train, inputs = sections["train"], sections["input"]
    mesh_lib.start(train.compilation_cache)

    import jax

    from rgjax.hf import families
    from rgjax.hf.load import Pretrained
    from rgjax.parallel import sharding
    from rgjax.tasks import reason
    from rgjax.train import groups, workdir
    from rgjax.train.loop import Loop

    mesh = mesh_lib.make(train.mesh)
    sharding.check_batch(inputs.batch_size, mesh, sections["optimizer"].accumulate)
    dataset, tokenizer = reason.dataset_tokenizer(inputs.dataset)
    source = Pretrained.open(train.init_from) if train.init_from and not stored else None
    if source:
        sections["model"] = source.configure(sections["model"], app.given(ModelConfig), tokenizer)
    task = reason.ReasonTask(tokenizer, inputs, sections["model"])
    if source:
        source.check(task.factory)
    groups.check(sections["optimizer"], task.factory)
    facts = {**sections, "task": reason.NAME, "dataset_fingerprint": dataset.fingerprint, "vocab_size": tokenizer.vocab_size}
    facts |= {"synthetic": dataset.manifest.get("synthetic", False), "dataset_name": dataset.manifest["name"], "controls": dataset.controls}
    facts |= {"counts": dataset.manifest["counts"], "processes": jax.process_count()}
    if train.patience and not dataset.count("val"):
        raise UserError(f"--patience={train.patience} needs a validation split and {inputs.dataset} has none; set it to 0 or prepare one.")
    loss = task.loss(sections["optimizer"].label_smoothing, sections["optimizer"].rdrop)
    replay = task.replayed(dataset)
    facts |= {"replay_fingerprints": [earlier.fingerprint for earlier in replay]}
    data = task.training_data(dataset, train.seed, replay)
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    mesh_lib.meet("workdir read")  # nobody writes into it before
    if jax.process_index() == 0:
        workdir.write(train.workdir, facts, flags.FLAGS.flags_into_string())
        shutil.copytree(dataset.tokenizer_folder, f"{train.workdir}/tokenizer", dirs_exist_ok=True)
    mesh_lib.meet("workdir written")
    split = "val"  # never test: what chooses a checkpoint can't judge it
    shown = list(itertools.islice(dataset.examples(split), train.samples)) if dataset.count(split) else []

    decode = DecodeConfig(decode_batch=max(1, len(shown)), max_new_tokens=inputs.target_length)
    writers = []

    def sample(params: dict, step: int) -> list[dict]:
        if not shown:
            return []
        writer = writers[0] if writers else task.writer(params, decode)
        writers[:] = [writer.using(params)]  # compiled once for all evaluations
        return reason.sample_rows(shown, writer.write(shown), step)

    validation = lambda: task.evaluation_data(dataset, split, train.eval_batches)
    if jax.process_index() == 0 and (why := families.unexportable(sections["model"])):
        print(f"note: this model will not export to Hugging Face ({why})", file=sys.stderr)
    initial = (lambda: Pretrained.open(train.init_from).params(task.factory, mesh, train.seed)) if train.init_from else None
    summary = Loop(task.factory, loss, data, validation, sample, train, sections["optimizer"], mesh, initial).run()
    return summary if jax.process_index() == 0 else None


if __name__ == "__main__":
    app.define(InputConfig, ModelConfig, OptimizerConfig, TrainConfig, DecodeConfig)
    app.run(main, __doc__)
