"""A training run put together: data, model, what is trained of it, and the loop."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys

import jax
from flax import nnx

from rgjax import trees
from rgjax.config import AdapterConfig, DecodeConfig, OptimizerConfig
from rgjax.data import streams
from rgjax.data.dataset import Dataset
from rgjax.data.teacher import TeacherLogits
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf import adapter as adapter_lib
from rgjax.hf import families
from rgjax.hf.load import Pretrained
from rgjax.models.adapted import LOW_RANK
from rgjax.nn import fused
from rgjax.nn.adapters import lowrank
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.tasks import codes, judges, preference, reason
from rgjax.tasks import ewc as ewc_task
from rgjax.tasks.decoding import check_code_words
from rgjax.tasks.run import Earlier, open_source, reads_bare
from rgjax.train import adalora, ewc, groups, optimizer, profile, tuning, workdir
from rgjax.train.checkpoint import saved
from rgjax.train.contrast import Swaps
from rgjax.train.distillation import Distillation
from rgjax.train.loop import Loop
from rgjax.train.tuning import Tuning


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """The loop of the configured run, its workdir written.

    `sections` are those of `workdir.SECTIONS`, `stored` what the workdir holds already, `explicit` the model options that were given.
    Raises UserError before anything is written when the parts do not fit each other or the stored run.
    """
    train, inputs = sections["train"], sections["input"]
    mesh = mesh_lib.make(train.mesh)
    share = mesh_lib.share(mesh)
    sections["input"] = inputs = streams.settled(inputs, share[1], preference.rows_to_deal(sections))
    sharding.check_batch(inputs.batch_size, mesh, sections["optimizer"].accumulate)
    dataset, tokenizer = reason.dataset_tokenizer(inputs.dataset)
    source = _source(sections, stored)
    if source and not stored:
        sections["model"] = source.configure(sections["model"], explicit, tokenizer)
    ewc_task.check(train, dataset)
    preference.check(sections, share[1])
    check(sections, dataset, mesh)
    task = reason.ReasonTask(tokenizer, inputs, sections["model"], sections["adapter"])
    if source and not stored:
        source.check(task.factory.base)
    groups.check(sections["optimizer"], task.factory, Tuning(sections["adapter"]).trained)
    optimizer.make(sections["optimizer"], train.steps, sections["adapter"])  # for what it refuses, before anything is written
    how = tuning_of(task, sections, source, mesh, begun=bool(stored) and saved(train.workdir))
    facts = facts_of(sections, dataset, tokenizer, source, stored) | ({"base_fingerprint": source.fingerprint} if source else {})
    facts |= {"vectors_fingerprint": task.vectors.fingerprint()} if task.vectors else {}
    if train.patience and not dataset.count("val"):
        raise UserError(f"--patience={train.patience} needs a validation split and {inputs.dataset} has none; set it to 0 or prepare one.")
    teacher, replay = task.teacher(dataset, sections["optimizer"].distill_temperature), task.replayed(dataset)
    loss = loss_of(task, sections["optimizer"], teacher, dataset.controls)
    facts |= {"replay_fingerprints": [earlier.fingerprint for earlier in replay], "distill_fingerprint": teacher.fingerprint if teacher else ""}
    pairs = None if sections["optimizer"].preference == "none" else preference.PairData.open(task, dataset)
    data = pairs.training(train.seed, share) if pairs else task.training_data(dataset, train.seed, replay, teacher, share)
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    write(facts if source or not stored else {**stored, **facts}, dataset)
    if jax.process_index() == 0 and (why := families.unexportable(sections["model"])):
        print(f"note: this model will not export to Hugging Face ({why})", file=sys.stderr)
    if pairs:
        pairs.measure(train.workdir, None if stored and saved(train.workdir) else how.initial, mesh)

    def validation():  # never test: what chooses a checkpoint can't judge it
        return pairs.validation(train.eval_batches, share) if pairs else task.evaluation_data(dataset, "val", train.eval_batches, share=share)

    sample = sampler(task, dataset, sections)
    return Loop(task.factory, loss, data, validation, sample, train, sections["optimizer"], mesh, how)


def check(sections: dict, dataset: Dataset, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError for options that this machine, the run's length or the dataset have no place for, whatever trains a generator."""
    profile.steps(sections["train"].profile_steps, sections["train"].steps)
    fused.check(sections["model"], sections["adapter"].adapter, mesh.size)
    check_code_words(sections["decode"], dataset.controls)


def check_usual(sections: dict, usual: dict[str, dict]) -> None:
    """Raises UserError for an option that is not as it is usually (section -> name -> value), where the task has no place for it."""
    for section, values in usual.items():
        for name, value in values.items():
            if (given := getattr(sections[section], name)) != value:
                shown = str(value).lower() if isinstance(value, bool) else value
                raise UserError(f"--{name}={given} has no place in --task={sections['train'].task}; leave it at '{shown}'.")


def loss_of(task: reason.ReasonTask, config: OptimizerConfig, teacher: TeacherLogits | None, controls: dict[str, list[str]]):
    """The step's loss function, as the optimizer's section says, for data with these control codes."""
    if config.preference != "none":
        return preference.loss(config)
    distill = Distillation(config.distill_weight, config.distill_temperature) if teacher else None
    return task.loss(config.label_smoothing, config.rdrop, distill, config.fgm, swaps_of(task, config.code_contrast, controls))


def swaps_of(task: reason.ReasonTask, weight: float, controls: dict[str, list[str]]) -> Swaps | None:
    """What --code_contrast tells apart, None without it; raises UserError where the data or the prompt give it nothing."""
    if not weight:
        return None
    found = codes.swaps(task, controls, f"--code_contrast={weight:g}", weight)
    if task.input.loss_on == "all":
        raise UserError(f"--code_contrast={weight:g} compares reasons, and --loss_on=all scores prompts, which hold the codes; leave one out.")
    return found


def _source(sections: dict, stored: dict | None):
    """What --init_from names, where the run needs it: as long as nothing is saved, and for what it does not train."""
    path, freezes = sections["train"].init_from, Tuning(sections["adapter"]).freezes
    if freezes and not path:
        flag = "adapter" if sections["adapter"].adapter != "none" else "freeze"
        raise UserError(f"--{flag}={getattr(sections['adapter'], flag)} needs a trained model to stand on; name its folder with --init_from.")
    if not path or (stored and not freezes and saved(sections["train"].workdir)):
        return None
    return open_source(path)


def tuning_of(task: reason.ReasonTask, sections: dict, source, mesh: jax.sharding.Mesh, begun: bool = False) -> Tuning:
    """What is trained; raises UserError when a pattern names nothing. A run that has `begun` has its adapter's values in its checkpoint."""
    config = sections["adapter"]
    tuning.check(config, nnx.to_pure_dict(task.factory.abstract), sections["train"].steps)
    values = {} if begun else _adapter_values(task, config, source)

    def initial() -> dict:
        own = source.params(task.factory.base, mesh, sections["train"].seed)
        if not values:
            return own
        placed = sharding.parameters(task.factory.abstract, mesh)["adapter"]
        return {**own, "adapter": jax.tree.map(jax.device_put, values, placed)}

    train, how = sections["train"], Tuning(config, initial if source else None)
    penalties = (adalora.orthogonality(config),) if config.adapter == "adalora" else ()
    if not train.ewc:
        return dataclasses.replace(how, penalties=penalties)
    return dataclasses.replace(how, penalties=(*penalties, ewc.penalty(train.ewc)), extras=ewc_task.extras(task, train, how.trained, mesh))


def _adapter_values(task: reason.ReasonTask, config: AdapterConfig, source) -> dict:
    """The values of --adapter_from, {} without it; raises UserError unless they are of the configured adapter."""
    if not config.adapter_from:
        return {}
    if config.adapter == "none":
        raise UserError(f"--adapter_from={config.adapter_from} needs --adapter; name the adapter's kind.")
    family = source.family if isinstance(source, Pretrained) else families.choose(task.factory.config, "auto")
    options, values = adapter_lib.read(config.adapter_from, task.factory.base, family)
    if config.adapter in LOW_RANK and not math.isclose(there := lowrank.scale(options), here := lowrank.scale(config), rel_tol=1e-6):
        raise UserError(
            f"--adapter_from={config.adapter_from} multiplies its term by {there:g} and the flags by {here:g}; take --alpha={options.alpha:g} "
            "and the --rslora that it was trained with."
        )
    wanted = {path: leaf.shape for path, leaf in trees.flat(nnx.to_pure_dict(task.factory.abstract)["adapter"])}
    found = {path: leaf.shape for path, leaf in trees.flat(values)}
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            here, there = (f"has {list(s[path])}" if path in s else "is missing" for s in (wanted, found))
            raise UserError(
                f"--adapter_from={config.adapter_from} is not of the configured adapter: {path} {here} by the flags and {there} in the folder; "
                "take the flags it was trained with."
            )
    return values


def facts_of(sections: dict, dataset: Dataset, tokenizer: Tokenizer, source: Pretrained | Earlier | None, stored: dict | None) -> dict:
    """What config.json tells of a run beside its options; `source` is what it begins with, unless it goes on from `stored`."""
    before = stored or (source.run.facts if isinstance(source, Earlier) else None)
    facts = {**sections, "task": reason.NAME, "dataset_fingerprint": dataset.fingerprint, "vocab_size": tokenizer.vocab_size}
    facts |= {"synthetic": dataset.manifest.get("synthetic", False), "dataset_name": dataset.manifest["name"], "controls": dataset.controls}
    facts |= {"reads_bare": reads_bare(sections) or (before is not None and reads_bare(before)), "length_bands": str(judges.bands(dataset) or "")}
    return facts | {"counts": dataset.manifest["counts"], "origin_fingerprint": dataset.origin}


def write(facts: dict, dataset: Dataset) -> None:
    """Makes the workdir: its configuration, and the dataset's tokenizer."""
    mesh_lib.meet("workdir read")  # nobody writes into it before
    if jax.process_index() == 0:
        folder = facts["train"].workdir
        workdir.write(folder, facts)
        workdir.copy(dataset.tokenizer_folder, f"{folder}/tokenizer")
    mesh_lib.meet("workdir written")


def sampler(task: reason.ReasonTask, dataset: Dataset, sections: dict):
    """`sample(params, step)`: rows of samples.jsonl for the first validation examples."""
    count = sections["train"].samples if dataset.count("val") else 0
    shown, writers = list(itertools.islice(dataset.examples("val"), count)) if count else [], []
    decode = DecodeConfig(decode_batch=max(1, len(shown)), max_new_tokens=sections["input"].target_length)

    def sample(params: dict, step: int) -> list[dict]:
        if not shown:
            return []
        writer = writers[0] if writers else task.writer(params, decode)
        writers[:] = [writer.using(params)]  # compiled once for all evaluations
        rows = reason.sample_rows(shown, writer.write(shown), step)
        writer.writer.release()  # training needs the memory
        return rows

    return sample
