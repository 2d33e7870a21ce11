"""Tuning a reason generator by rewards: it writes a group of reasons for each input, and moves towards those that are rewarded above their group."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rgjax import trees
from rgjax.config import DecodeConfig, GroupConfig
from rgjax.data import numbered
from rgjax.data.dataset import Dataset
from rgjax.decode import postprocess
from rgjax.decode.writer import Hypothesis
from rgjax.errors import UserError
from rgjax.models.adapted import PREPENDED
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks import reason, training
from rgjax.tasks.reason import ReasonTask
from rgjax.tasks.rewards import Rewards
from rgjax.tasks.run import open_source
from rgjax.tasks.writing import Reasons
from rgjax.train import collapse, groups, grpo, optimizer, workdir
from rgjax.train.adversarial import Texts
from rgjax.train.checkpoint import saved
from rgjax.train.loop import Loop, Method
from rgjax.train.state import TrainState
from rgjax.train.step import make_train_step
from rgjax.train.tuning import Tuning
from rgjax.train.variety import variety

WATCHED = ("distinct_2", "entropy")  # for a collapse: a group's texts overlap, as they are for one input, and rewards may be for lengths


def check(sections: dict) -> None:
    """Raises UserError for options that have no place here."""
    train, adapter, config = sections["train"], sections["adapter"], sections["optimizer"]
    if not train.init_from:
        raise UserError("--task=grpo tunes a trained generator and none is given; name its folder with --init_from.")
    if adapter.adapter_from:
        raise UserError(f"--adapter_from={adapter.adapter_from} has no place in --task=grpo; begin with the run that trained it (--init_from).")
    if adapter.adapter in (*PREPENDED, "prefix", "adalora"):
        raise UserError(f"--adapter={adapter.adapter} has no place in --task=grpo; take --adapter=lora, or leave it out.")
    if sections["model"].dropout:
        raise UserError(f"--dropout={sections['model'].dropout:g} would draw reasons from another model than it trains; give --dropout=0.")
    usual = {"input": {"packing": False, "buckets": "1", "replay": "", "distill": "", "loss_on": "reason", "item_vectors": "", "user_vectors": ""}}
    usual |= {"adapter": {"freeze": "", "unfreeze": "", "adapter_dropout": 0.0}, "train": {"ewc": 0.0, "nonfinite": "stop", "patience": 0}}
    usual |= {"optimizer": {"preference": "none", "rdrop": 0.0, "fgm": 0.0, "code_contrast": 0.0, "label_smoothing": 0.0, "ema": 0.0}}
    training.check_usual(sections, usual)
    if jax.process_count() > 1:
        raise UserError("--task=grpo runs in one process; start it once, with --mesh over its devices.")
    if sections["input"].batch_size % config.accumulate:
        raise UserError(f"--batch_size={sections['input'].batch_size} does not divide among --accumulate={config.accumulate} parts; take a multiple.")


@dataclasses.dataclass
class Groups:
    """Draws groups of reasons for a batch of inputs, has them judged, and makes of both what a step learns from."""

    task: ReasonTask
    config: GroupConfig
    decode: DecodeConfig
    rewards: Rewards
    dataset: Dataset
    parts: int  # that a step's texts are scored in, one after another
    reference: dict | None  # all parameters of the model that tuning begins with; None where an adapter leaves them as they are
    mesh: jax.sharding.Mesh

    def __post_init__(self):
        self.writing, self.source = Reasons.of(self.task), self.dataset.source("train")
        base = getattr(self.task.factory, "base", self.task.factory)

        def draw(state: TrainState, fixed: dict, batch: dict) -> tuple[Texts, dict]:
            model = self.task.factory.model(trees.join(state.params, fixed["weights"]))
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            drawn = self.writing.sample(model, key, self.writing.real(batch)[1], self.config.group)
            return drawn, variety(*drawn)

        def known(weights: dict, batch: dict, texts: Texts) -> jax.Array:
            given = self.writing.real(batch)[1]
            score = lambda part: self.writing.log_probs(base.model(weights), _repeated(part[0], self.config.group), part[1])
            split = lambda x: x.reshape(self.parts, -1, *x.shape[1:])
            return jax.lax.map(score, jax.tree.map(split, (given, texts))).reshape(texts.tokens.shape)

        self._draw, self._known = (jax.jit(sharding.on_mesh(call, sharding.replicated(self.mesh))) for call in (draw, known))

    def texts(self, examples: Sequence[dict], drawn: Texts) -> list[str]:
        """What would be shown of `drawn`, a group for each example."""
        ends, told = set(self.task.template.ends), []
        blank = [self.task.template.render(e | {"reason": ""}) for e in examples]
        for n, (row, there) in enumerate(zip(drawn.tokens.tolist(), drawn.mask.sum(1).tolist(), strict=True)):
            ids = row[:there]
            ended = bool(ids) and ids[-1] in ends
            spoken = Hypothesis(self.task.template.spoken(ids[:-1] if ended else ids), 0.0, ended)
            told.append(postprocess.finish(spoken, blank[n // self.config.group].surfaces, self.task.tokenizer, self.decode))
        return told

    def batch(self, state: TrainState, fixed: dict, batch: dict) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """(arrays with a row a text [P * G, ...], figures to log) of the inputs [P, ...], in memory."""
        placed = sharding.put({name: x for name, x in batch.items() if name not in numbered.FACTS}, self.mesh)
        drawn, varied = self._draw(state, fixed, placed)
        reference_BT = self._known(self.reference or fixed["weights"], placed, drawn)
        drawn, reference_BT, varied = jax.device_get((drawn, reference_BT, varied))
        shown = [numbered.control(row, self.dataset.controls) for row in batch["control"]]
        examples = [self.source[int(i)] | {"control": control} for i, control in zip(batch["example"], shown, strict=True)]
        found_NK = self.rewards([e for e in examples for _ in range(self.config.group)], self.texts(examples, drawn))
        told = {f"reward_{name}": value for name, value in zip(self.rewards.names, found_NK.mean(0), strict=True)}
        better_PG = grpo.advantages(found_NK.reshape(len(examples), self.config.group, -1), self.rewards.numbers)
        rows = {"texts": drawn.tokens, "mask": drawn.mask, "reference": reference_BT, "advantage": better_PG.reshape(-1)}
        rows["written_per_real"] = np.full(len(examples), drawn.mask.sum() / max(batch["weights"].sum(), 1), np.float32)
        return rows, told | varied | {"written_tokens": drawn.mask.sum(1).mean()}

    def sums(self, model, batch: dict, key: jax.Array | None) -> dict[str, jax.Array]:
        """The step's loss function of one micro-batch: `rgjax.train.grpo.group_sums` with the references' likelihood beside."""
        real, given = self.writing.real(batch)
        log_probs_BT = self.writing.log_probs(model, _repeated(given, self.config.group), Texts(batch["texts"], batch["mask"]))
        found = grpo.group_sums(log_probs_BT, batch["reference"], batch["mask"], batch["advantage"], self.config.group_kl)
        weight, held = self.config.group_nll, model if self.config.group_nll else jax.lax.stop_gradient(model)
        nll_BT = -self.writing.log_probs(held, given, real) * real.mask
        nll = jnp.sum(nll_BT * batch["written_per_real"][:, None])  # over the step's written tokens, the mean over its real ones
        return found | {"loss": found["loss"] + weight * nll, "nll": nll}


def _repeated(given: dict, times: int) -> dict:
    return {name: jnp.repeat(x, times, axis=0) for name, x in given.items()}


def method(task: ReasonTask, drawn: Groups, sections: dict, tuning: Tuning) -> Method:
    """A step that writes, is judged on the host, and learns; with a watch for collapse."""
    config, train = sections["optimizer"], sections["train"]
    tx = optimizer.make(config, train.steps, tuning.config)

    def step(like: TrainState):
        learn = make_train_step(task.factory, drawn.sums, tx, config, like=like)

        def run(state: TrainState, fixed: dict, batch: dict) -> tuple[TrainState, dict]:
            inputs = {name: x[0] for name, x in jax.device_get(batch).items()}
            rows, told = drawn.batch(state, fixed, inputs)
            rows |= {name: x for name, x in inputs.items() if name not in numbered.FACTS}
            state, metrics = learn(state, {"weights": fixed["weights"]}, sharding.put(rows, drawn.mesh, config.accumulate))
            return state, metrics | told

        return run

    def note(step: int, values: dict[str, float], progress: dict) -> None:
        kept = "what was saved before stays. Start anew with a lower --learning_rate or a higher --group_kl."
        if odd := [name for name in ("loss", "kl", "grad_norm") if not math.isfinite(values[name])]:
            raise UserError(f"{odd[0]} of step {step} is {values[odd[0]]}; {kept}")
        if text := collapse.Collapse(progress).note(step, {name: values[name] for name in WATCHED}):
            raise UserError(f"{text}; {kept}")

    return Method(tx, step, optimizer.schedule(config, train.steps), 1, note, collapse.sound, waits=True)


def judged_by(sections: dict, dataset: Dataset, stored: dict | None) -> Rewards:
    """The rewards of a run; raises UserError where they, or what is asked for, do not fit the dataset or the `stored` run."""
    group, rewards = sections["group"], Rewards(sections["reward"], dataset)
    if group.any_codes and (group.group_nll or not dataset.controls):
        why = "the references have other codes; give --group_nll=0" if group.group_nll else f"{dataset.folder} declares no codes; leave it out"
        raise UserError(f"--any_codes asks for codes in place of an input's own, and {why}.")
    if not rewards.numbers.any():
        raise UserError(f"--rewards={sections['reward'].rewards} weighs everything 0; give some a weight.")
    if stored and stored["decode"] != sections["decode"]:
        folder = sections["train"].workdir
        raise UserError(f"{folder} rewards reasons as its own decoding flags show them; leave those out to go on, or give a new --workdir.")
    return rewards


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """As `rgjax.tasks.training.assemble`, of a generator that is tuned by --rewards."""
    train = sections["train"]
    if "dropout" not in explicit:
        sections["model"] = dataclasses.replace(sections["model"], dropout=0.0)
    check(sections)
    mesh = mesh_lib.make(train.mesh)
    share = mesh_lib.share(mesh)
    sharding.check_batch(sections["input"].batch_size, mesh, sections["optimizer"].accumulate)
    dataset, tokenizer = reason.dataset_tokenizer(sections["input"].dataset)
    rewards, source = judged_by(sections, dataset, stored), open_source(train.init_from)
    if not stored:
        sections["model"] = dataclasses.replace(source.configure(sections["model"], explicit, tokenizer), dropout=0.0)
    if sections["model"].architecture != "causal":
        raise UserError(f"--task=grpo needs --architecture=causal, and this generator is {sections['model'].architecture}.")
    training.check(sections, dataset, mesh)
    task = ReasonTask(tokenizer, sections["input"], sections["model"], sections["adapter"])
    base = getattr(task.factory, "base", task.factory)
    if not stored:
        source.check(base)
    how = training.tuning_of(task, sections, source, mesh, begun=bool(stored) and saved(train.workdir))
    groups.check(sections["optimizer"], task.factory, how.trained)
    facts = training.facts_of(sections, dataset, tokenizer, source, stored) | {"base_fingerprint": source.fingerprint}
    facts |= {"discriminator_fingerprint": rewards.fingerprint}
    how_asked = {"seed": train.seed, "any_codes": sections["group"].any_codes}
    data = numbered.train_batches(dataset, task.template, sections["input"], task.architecture, **how_asked)
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    training.write(facts, dataset)
    reference = None if how.freezes else jax.tree.map(jnp.copy, source.params(base, mesh, train.seed))  # the run's own are given away
    drawn = Groups(task, sections["group"], sections["decode"], rewards, dataset, sections["optimizer"].accumulate, reference, mesh)
    sample = training.sampler(task, dataset, sections)
    validation = lambda: task.evaluation_data(dataset, "val", train.eval_batches, share=share)
    return Loop(
        task.factory, task.loss(0.0), data, validation, sample, train, sections["optimizer"], mesh, how,
        method=method(task, drawn, sections, how),
    )  # fmt: skip
