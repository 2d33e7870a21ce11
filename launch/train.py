"""Trains a reason generator, a model of behaviour that ranks items, or one of bundles; or continues the run in --workdir.

    python -m launch.train --flagfile=configs/demo.cfg --dataset=DATASET --workdir=W
    python -m launch.train --init_from=FOLDER --dataset=DATASET --workdir=W    (begins with a Hugging Face model, or a run)
    python -m launch.train --init_from=FOLDER --adapter=lora --dataset=DATASET --workdir=W    (trains an adapter on it)
    python -m launch.train --flagfile=configs/reason_gan.cfg --init_from=W --dataset=DATASET --workdir=V    (against a discriminator)
    python -m launch.train --flagfile=configs/reason_grpo.cfg --init_from=W --dataset=DATASET --workdir=V    (by rewards for what it writes)
    python -m launch.train --flagfile=configs/ml1m_behaviour.cfg --source=FOLDER --workdir=W    (what a shopper takes next)
    python -m launch.train --flagfile=configs/bundle_electronic.cfg --source=FOLDER --workdir=W    (what goes with what)

An existing workdir is continued from its last checkpoint; flags that are left out then keep the run's values. Decoding flags
are kept with the run, as what launch.generate and launch.evaluate do by default.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from launch import app, pages
from rgjax.config import AdversarialConfig, DiscriminatorConfig, InputConfig, ModelConfig, OptimizerConfig
from rgjax.errors import UserError
from rgjax.train import workdir

READ = {  # which tasks look at a section's flags; at those of all others every task does
    "adapter": ("reason", "grpo"), "decode": ("reason", "adversarial", "grpo"), "adversarial": ("adversarial",), "discriminator": ("adversarial",),
    "reward": ("grpo",), "group": ("grpo",), "shop": ("behaviour", "bundle"), "behaviour": ("behaviour",), "bundle": ("bundle",),
}  # fmt: skip


def configs() -> tuple[dict, dict | None]:
    """The sections from the flags, and the workdir's own run if there is one: what is not given comes from it."""
    from rgjax.data import choices

    given = {name: app.read(cls) for name, cls in workdir.SECTIONS.items()}
    app.require(workdir=given["train"].workdir)
    begun = workdir.exists(given["train"].workdir)
    if not begun:
        _check_read(given)
        if given["train"].task in ("reason", "adversarial", "grpo") or not given["shop"].source:
            app.require(dataset=given["input"].dataset)
        return given | {"input": choices.settled(given["input"], app.given(InputConfig) | app.given(OptimizerConfig))}, None
    stored = workdir.read(given["train"].workdir)
    for name, cls in workdir.SECTIONS.items():
        explicit = {f: getattr(given[name], f) for f in app.given(cls)}
        given[name] = dataclasses.replace(stored[name], **explicit)
    return given, stored


def _check_read(given: dict) -> None:
    """Raises UserError for a flag that was given and that the task does not look at."""
    task, known = given["train"].task, {name: app.given(cls) for name, cls in workdir.SECTIONS.items()}
    for section, tasks in READ.items():
        if task not in tasks and known[section]:
            others = " or ".join(f"--task={name}" for name in tasks)
            raise UserError(f"--{min(known[section])} does nothing in --task={task}; leave it out, or give {others}.")
    if stray := (known["adversarial"] | known["discriminator"]) & idle(given["adversarial"], given["discriminator"]):
        raise UserError(f"--{min(stray)} does nothing beside the other flags; leave it out, or add what it is for (see --help).")


def idle(gan: AdversarialConfig, judge: DiscriminatorConfig) -> set[str]:
    """Options of adversarial training that do nothing beside these others."""
    names = {"reward", "completions", "completions_every", "baseline"} if gan.estimator == "gumbel" else {"heat", "heat_end", "heat_schedule"}
    names |= set() if gan.completions else {"completions_every"}
    names |= set() if gan.gan_loss == "wasserstein" else {"gradient_penalty"}
    return names | ({"d_layers", "d_heads"} if judge.discriminator == "cnn" else {"d_windows", "d_filters", "d_highway", "d_norm"})


def main() -> dict | None:
    """Builds the run from the flags and trains it; returns the summary printed last, which is the first process's to print."""
    from rgjax.parallel import cluster

    sections, stored = configs()
    cluster.start(sections["train"].compilation_cache, sections["train"].optimization_level)

    import jax

    from rgjax.tasks import adversarial, grpo, training
    from rgjax.tasks.shop import behaviour, bundle

    tasks = {"reason": training, "adversarial": adversarial, "grpo": grpo, "behaviour": behaviour, "bundle": bundle}
    task = tasks[sections["train"].task]
    loop = task.assemble(sections, stored, app.given(ModelConfig))
    summary = loop.run()
    if (code := sections["train"].preempted_code) and loop.preemption.agreed and not summary["finished"]:
        if jax.process_index() == 0:
            print(json.dumps(summary), flush=True)
        sys.exit(code)
    return summary if jax.process_index() == 0 else None


if __name__ == "__main__":
    pages.begin_again()
    app.define(*workdir.SECTIONS.values())
    app.run(main, __doc__)
