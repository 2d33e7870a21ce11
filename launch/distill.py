"""What a trained model, the teacher, hands on to a smaller one: its reasons as a dataset, or its probabilities.

    python -m launch.distill --workdir=TEACHER --output=DATASET2 --method=beam
    python -m launch.train --dataset=DATASET2 --workdir=STUDENT

    python -m launch.distill --workdir=TEACHER --output=LOGITS --logits=16
    python -m launch.train --dataset=DATASET --distill=LOGITS --workdir=STUDENT

The first rewrites the training split with the teacher's reasons (--n_best of each) and keeps validation and test; interrupted, it goes
on with the same command. The second reads the training split as the teacher's run does. Decoding flags that are left out are the run's.
"""

from __future__ import annotations

import pathlib

from launch import app
from rgjax.config import DecodeConfig, DistillConfig
from rgjax.errors import UserError


def main() -> dict:
    """Reads the flags, writes, and returns the summary that is printed last."""
    config, given = app.read(DistillConfig), app.read(DecodeConfig)
    app.require(workdir=config.workdir, output=config.output)
    if config.logits and (decoding := sorted(app.given(DecodeConfig))):
        raise UserError(f"--{decoding[0]} is given, and --logits writes no reasons; leave one out.")
    if not config.logits and "temperatures" in app.given(DistillConfig):
        raise UserError("--temperatures is given, and without --logits no probabilities are written; add --logits, or leave it out.")

    from rgjax.tasks import decoding, rewrite, teach
    from rgjax.tasks.run import Run

    run = Run.open(config.workdir, config.checkpoint, config.base)
    dataset = run.readable(config.dataset)
    app.check_apart(config.output, config.workdir, str(dataset.folder), run.facts["train"].init_from)
    if pathlib.Path(config.output).resolve().is_relative_to(dataset.folder.resolve()):
        raise UserError(f"--output={config.output} lies in {dataset.folder}, which is read; give another folder.")
    with app.progress("distilling") as show:
        if config.logits:
            return teach.teach(run, dataset, config.logits, config.temperatures, config.output, config.overwrite, show)
        decode = decoding.configured(run.facts, given, app.given(DecodeConfig))
        return rewrite.rewrite(run, dataset, decode, config.output, config.overwrite, show)


if __name__ == "__main__":
    app.define(DistillConfig, DecodeConfig)
    app.run(main, __doc__)
