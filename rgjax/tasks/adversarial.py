"""Adversarial training of a reason generator, which a run or a Hugging Face folder gives: a discriminator reads what was written, and for what."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from rgjax.config import AdversarialConfig, OptimizerConfig, TrainConfig
from rgjax.decode import conditional
from rgjax.errors import UserError
from rgjax.models.adversaries import Adversaries
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks import reason, training
from rgjax.tasks.run import open_source
from rgjax.train import adversarial, workdir
from rgjax.train.adversarial import Texts
from rgjax.train.checkpoint import saved
from rgjax.train.collapse import Collapse
from rgjax.train.loop import Loop, Method
from rgjax.train.tuning import Tuning


@dataclasses.dataclass(frozen=True)
class Reasons:
    """How a decoder-only generator writes reasons (`rgjax.train.adversarial.Writing`); `given` are prompts padded on the left, and their lengths."""

    prompt_length: int
    length: int
    end_id: int

    def real(self, batch: dict) -> tuple[Texts, dict]:
        prompts_BS, lengths_B, texts_BT, mask_BT = conditional.split(batch, self.prompt_length, self.length)
        return Texts(texts_BT, mask_BT), {"prompts_BS": prompts_BS, "lengths_B": lengths_B}

    def read(self, given: dict) -> Texts:
        there_BS = jnp.arange(self.prompt_length)[None] >= self.prompt_length - given["lengths_B"][:, None]
        return Texts(given["prompts_BS"], there_BS.astype(jnp.int32))

    def sample(self, model, key: jax.Array, given: dict) -> Texts:
        return Texts(*conditional.sample(model, key, **given, length=self.length, end_id=self.end_id))

    def relaxed(self, model, key: jax.Array, given: dict, heat: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key)
        texts = self.sample(jax.lax.stop_gradient(model), keys[0], given)
        logits_BTV = conditional.logits(model, given["prompts_BS"], given["lengths_B"], *texts)
        return conditional.relaxed(logits_BTV, texts.tokens, keys[1], heat), texts.mask

    def log_probs(self, model, given: dict, texts: Texts) -> jax.Array:
        return conditional.log_probs(model, given["prompts_BS"], given["lengths_B"], *texts)


def check(sections: dict) -> None:
    """Raises UserError for options that have no place here, or contradict each other."""
    config, inputs, train = sections["adversarial"], sections["input"], sections["train"]
    steps = config.d_steps + config.g_steps
    if inputs.batch_size % steps:
        raise UserError(f"--batch_size={inputs.batch_size} are the rows of a round of {steps} steps (--d_steps and --g_steps); take a multiple.")
    adversarial.check(config, inputs.batch_size // steps)
    if config.completions and config.estimator == "reinforce" and config.reward == "discriminator":
        raise UserError(f"--completions={config.completions} is for the oracle benchmark's LSTM; give --completions=0.")
    if not train.init_from:
        raise UserError("--task=adversarial tunes a trained generator and none is given; name its folder with --init_from.")
    usual = {"input": {"packing": False, "buckets": "1", "replay": "", "distill": "", "loss_on": "reason", "item_vectors": "", "user_vectors": ""}}
    usual |= {"adapter": {"adapter": "none", "freeze": ""}, "train": {"ewc": 0.0, "nonfinite": "stop"}}
    usual |= {"optimizer": dataclasses.asdict(OptimizerConfig())}
    for section, values in usual.items():
        for name, value in values.items():
            if getattr(sections[section], name) != value:
                shown = str(value).lower() if isinstance(value, bool) else value
                raise UserError(f"--{name}={getattr(sections[section], name)} has no place in --task=adversarial; leave it at '{shown}'.")


def writing_of(task: reason.ReasonTask) -> Reasons:
    """How the task's model writes."""
    return Reasons(task.input.length - task.input.target_length, task.input.target_length, task.template.ends[0])


def method(factory: Adversaries, writing: Reasons, config: AdversarialConfig, train: TrainConfig) -> Method:
    """Two optimizers and a round, with a watch for collapse."""
    watch, run = Collapse(), adversarial.make_round(factory.generator, factory.discriminator, writing, config, train.steps)

    def note(step: int, values: dict[str, float]) -> None:
        if text := watch.note(step, values["distinct_2"]):
            raise UserError(f"{text}; the last and the best checkpoint are kept. Start anew with a lower --g_learning_rate or a higher --nll_weight.")

    def step(like):
        placed = jax.tree.map(lambda a: a.sharding, like)
        call = lambda state, fixed, batch: run(state, batch)
        return jax.jit(sharding.on_mesh(call, placed), donate_argnums=0, out_shardings=(placed, None))

    return Method(adversarial.optimizers(config, writing.length), step, config.g_learning_rate, config.d_steps + config.g_steps, note)


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """As `rgjax.tasks.training.assemble`, of a generator and its discriminator."""
    check(sections)
    train, mesh = sections["train"], mesh_lib.make(sections["train"].mesh)
    share, config = mesh_lib.share(mesh), sections["adversarial"]
    steps = config.d_steps + config.g_steps
    sharding.check_batch(sections["input"].batch_size, mesh, steps)
    if jax.process_count() > 1:
        raise UserError("--task=adversarial runs in one process; start it once, with --mesh over its devices.")
    dataset, tokenizer = reason.dataset_tokenizer(sections["input"].dataset)
    source = None if stored and saved(train.workdir) else open_source(train.init_from)
    if source and not stored:
        sections["model"] = source.configure(sections["model"], explicit, tokenizer)
    sections["model"] = dataclasses.replace(sections["model"], dropout=0.0)
    task = reason.ReasonTask(tokenizer, sections["input"], sections["model"])
    factory = Adversaries.of(task.factory, sections["discriminator"])
    if source and not stored:
        source.check(task.factory)
    facts = training.facts_of(sections, dataset, tokenizer) | ({"base_fingerprint": source.fingerprint} if source else {})
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
        method=method(factory, writing_of(task), config, train),
    )  # fmt: skip
