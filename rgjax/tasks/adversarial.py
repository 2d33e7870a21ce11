"""Adversarial training of a reason generator, which a run or a Hugging Face folder gives: a discriminator reads what was written, and for what."""

from __future__ import annotations

import dataclasses
import math

import jax
import optax

from rgjax.config import AdversarialConfig, OptimizerConfig, TrainConfig
from rgjax.data import streams
from rgjax.errors import UserError
from rgjax.models.adversaries import Adversaries
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks import reason, training
from rgjax.tasks.run import open_source
from rgjax.tasks.writing import Reasons
from rgjax.train import adversarial, collapse, workdir
from rgjax.train.checkpoint import saved
from rgjax.train.loop import Loop, Method
from rgjax.train.tuning import Tuning


def check(sections: dict, explicit: set[str]) -> None:
    """Raises UserError for options that have no place here, or contradict each other."""
    config, inputs, train = sections["adversarial"], sections["input"], sections["train"]
    steps = config.d_steps + config.g_steps
    if inputs.batch_size % steps:
        raise UserError(f"--batch_size={inputs.batch_size} are the rows of a round of {steps} steps (--d_steps and --g_steps); take a multiple.")
    adversarial.check(config, inputs.batch_size // steps, inputs.target_length)
    if sections["discriminator"].d_codes and config.gan_loss == "wasserstein":
        raise UserError("--d_codes has no bound by --gan_loss=wasserstein, whose penalty moves no codes; take another loss, or leave it out.")
    if config.d_warmup >= train.steps:
        raise UserError(f"--d_warmup={config.d_warmup} lets the generator rest in all of --steps={train.steps}; lower it.")
    if "dropout" in explicit and sections["model"].dropout:
        rate = sections["model"].dropout
        raise UserError(f"--dropout={rate:g} has no place in --task=adversarial; leave it out (--d_dropout is the discriminator's).")
    if not train.init_from:
        raise UserError("--task=adversarial tunes a trained generator and none is given; name its folder with --init_from.")
    usual = {"input": {"packing": False, "buckets": "1", "replay": "", "distill": "", "loss_on": "reason", "item_vectors": "", "user_vectors": ""}}
    usual |= {"adapter": {"adapter": "none", "freeze": ""}, "train": {"ewc": 0.0, "nonfinite": "stop"}}
    usual |= {"optimizer": dataclasses.asdict(OptimizerConfig())}
    training.check_usual(sections, usual)


def method(factory: Adversaries, writing: Reasons, config: AdversarialConfig, train: TrainConfig) -> Method:
    """Two optimizers and a round, with a watch for collapse."""
    run = adversarial.make_round(factory.generator, factory.discriminator, writing, config, train.steps)

    def note(step: int, values: dict[str, float], progress: dict) -> None:
        saved = "what was saved before stays. Start anew with"
        resting = step <= config.d_warmup
        odd = [name for name in ("loss", "d_loss", "d_grad_norm", "g_loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
        if odd := [name for name in odd if not (resting and name == "g_loss")]:
            raise UserError(f"{odd[0]} of round {step} is {values[odd[0]]}; {saved} a lower --g_learning_rate or --d_learning_rate.")
        if text := collapse.Collapse(progress).note(step, values):
            raise UserError(f"{text}; {saved} a lower --g_learning_rate or a higher --nll_weight.")

    def step(like):
        placed = jax.tree.map(lambda a: a.sharding, like)
        call = lambda state, fixed, batch: run(state, batch)
        return jax.jit(sharding.on_mesh(call, placed), donate_argnums=0, out_shardings=(placed, None))

    rate = optax.constant_schedule(config.g_learning_rate)
    return Method(adversarial.optimizers(config, writing), step, rate, config.d_steps + config.g_steps, note, collapse.sound)


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """As `rgjax.tasks.training.assemble`, of a generator and its discriminator."""
    check(sections, explicit)
    train, mesh = sections["train"], mesh_lib.make(sections["train"].mesh)
    share, config = mesh_lib.share(mesh), sections["adversarial"]
    steps = config.d_steps + config.g_steps
    sections["input"] = streams.settled(sections["input"], share[1])
    sharding.check_batch(sections["input"].batch_size, mesh, steps)
    dataset, tokenizer = reason.dataset_tokenizer(sections["input"].dataset)
    source = None if stored and saved(train.workdir) else open_source(train.init_from)
    if source and not stored:
        sections["model"] = source.configure(sections["model"], explicit, tokenizer)
    sections["model"] = dataclasses.replace(sections["model"], dropout=0.0)
    training.check(sections, dataset, mesh)
    task = reason.ReasonTask(tokenizer, sections["input"], sections["model"])
    factory = Adversaries.of(task.factory, sections["discriminator"])
    writing = Reasons.judged(task, sections["discriminator"], dataset.controls)
    if source and not stored:
        source.check(task.factory)
    facts = training.facts_of(sections, dataset, tokenizer, source, stored) | ({"base_fingerprint": source.fingerprint} if source else {})
    data = task.training_data(dataset, train.seed, share=share)
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    training.write(facts if source or not stored else {**stored, **facts}, dataset)
    how = Tuning(initial=(lambda: source.params(task.factory, mesh, train.seed)) if source else None)
    written = training.sampler(task, dataset, sections)
    sample = lambda params, step: written(params["generator"], step)
    validation = lambda: task.evaluation_data(dataset, "val", train.eval_batches, share=share)
    return Loop(
        factory, task.loss(0.0), data, validation, sample, train, sections["optimizer"], mesh, how,
        method=method(factory, writing, config, train),
    )  # fmt: skip
