"""The task of bundles: complete a set of items, and tell which sets suit a user."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import logsumexp

from rgjax import trees
from rgjax.config import AdapterConfig, BehaviourConfig, BundleConfig, InputConfig, ModelConfig, ShopConfig
from rgjax.data import shop_folder, streams
from rgjax.data.bundle_sets import BundleSets
from rgjax.data.bundles import NOBODY, Bundles, Case, completion_cases
from rgjax.data.interactions import Interactions
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.models.behaviour import table_rows
from rgjax.models.build import ModelFactory
from rgjax.models.bundle import CONTENT, BundleModel
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.rank import bundle_floors, content, text_space
from rgjax.rank.bundling import BundleRecommender
from rgjax.rank.text_space import TextSpace
from rgjax.train import bundle_loss, groups, optimizer, profile, workdir
from rgjax.train.loop import Judge, Loop
from rgjax.train.tuning import Tuning

NAME = "bundle"
K = 10  # of the validation metrics
_SPACE = "text_space.safetensors"


class BundleTask:
    """Ties a shop's bundles and the model's configuration together; `space` places the descriptions of its items."""

    def __init__(self, data: Interactions, bundles: Bundles, config: BundleConfig, inputs: InputConfig, model: ModelConfig, space: TextSpace):
        self.data, self.bundles, self.config, self.inputs, self.space = data, bundles, config, inputs, space
        self.content = space.of(content.described(data))
        queries = space.of([content.terms(text, {}) for text in bundles.intents])
        self.sets = BundleSets(data, bundles, config, queries)
        make = lambda config, rows, key: BundleModel(config, rows, key, self.content.shape[1])
        self.factory = ModelFactory(model, table_rows(len(data.items)), make)

    def loss(self):
        """The step's loss function."""
        return functools.partial(bundle_loss.sums, config=self.config, items=len(self.data.items))

    def tuning(self, mesh: jax.sharding.Mesh, seed: int) -> Tuning:
        """All but the descriptions is trained."""
        placed = sharding.parameters(self.factory.abstract, mesh)

        def initial() -> dict:
            fresh = jax.jit(lambda: self.factory.fresh(jax.random.fold_in(jax.random.key(seed), 0)), out_shardings=placed)()
            return fresh | {CONTENT: self.descriptions(placed[CONTENT])}

        return Tuning(AdapterConfig(freeze=f"^{CONTENT}$"), initial)

    def descriptions(self, placed) -> jax.Array:
        """float32 [V, Z] on the devices: the items' descriptions, zeros in the rows beyond them."""
        whole = np.pad(self.content, ((0, self.factory.vocab_size - len(self.content)), (0, 0)))
        return jax.make_array_from_callback(whole.shape, placed, lambda part: whole[part])

    def recommender(self, params: dict) -> BundleRecommender:
        """The model with these weights."""
        return BundleRecommender(self.factory, params, self.sets, len(self.data.items))

    def case_rows(self, cases: list[Case], told: bool) -> list[dict[str, np.ndarray]]:
        """What the model reads of each case, with its user if they are `told`."""
        user = lambda case: self.sets.owner(case.bundle) if told else NOBODY
        return [self.sets.row(case.context, user(case), case.bundle) for case in cases]

    def validator(self):
        """`measure(params)` on the validation bundles with their users told: loss, accuracy, HR and NDCG at 10; None where there is none."""
        cases = completion_cases(self.bundles, "val")
        if not cases:
            return None
        rows, targets = self.case_rows(cases, True), np.array([case.target for case in cases])
        contexts, keep = bundle_floors.contexts_of(cases, len(self.data.items)), []

        def measure(params: dict) -> dict[str, float]:
            keep[:] = [keep[0].using(params) if keep else self.recommender(params)]
            scores = keep[0].completions(rows)
            places = bundle_floors.ranks(scores, contexts, targets)
            loss = float((logsumexp(scores, axis=1) - scores[np.arange(len(targets)), targets]).mean())
            found = {f"val_{name}": value for name, value in bundle_floors.hits(places, K).items()}
            return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 50)), "val_accuracy": float((places == 1).mean()), **found}

        return measure


def with_bundles(shop: Shop) -> Bundles:
    """The shop's bundles; raises UserError where it has none, or none to train on."""
    if shop.bundles is None or not len(shop.bundles.of("train")):
        raise UserError(f"The shop '{shop.manifest['name']}' has no bundles to train on; add a table of bundles (docs/recommending.md).")
    return shop.bundles


def read_space(folder: str | pathlib.Path, data: Interactions) -> TextSpace | None:
    """The text space that a run was trained in, None where the folder has none yet; raises UserError when it does not fit the shop."""
    path = pathlib.Path(folder, _SPACE)
    if not path.is_file():
        return None
    found = text_space.vocabulary(data)
    try:
        basis = load_file(path)["basis"]
    except (OSError, KeyError, SafetensorError):
        raise UserError(f"{path} is damaged; restore it, or start a new run in another folder.") from None
    if len(basis) != len(found.numbers):
        raise UserError(f"{path} is of another catalogue than the run's; restore it, or start a new run in another folder.")
    return TextSpace(found, basis)


def _write_space(folder: str, space: TextSpace) -> None:
    path = pathlib.Path(folder, _SPACE)
    save_file({"basis": space.basis}, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """The loop of the configured run, its workdir written; as `rgjax.tasks.training.assemble`."""
    train, inputs, config, how = sections["train"], sections["input"], sections["bundle"], sections["optimizer"]
    profile.steps(train.profile_steps, train.steps)
    _refuse(sections)
    mesh = mesh_lib.make(train.mesh)
    share = mesh_lib.share(mesh)
    sections["input"] = inputs = streams.settled(inputs, share[1])
    sharding.check_batch(inputs.batch_size, mesh, how.accumulate)
    shop = shop_folder.open_any(inputs.dataset, sections["shop"].layout, sections["shop"].source)
    data, bundles = shop.interactions, with_bundles(shop)
    space = read_space(train.workdir, data) or text_space.fit(data, config.text_width)
    task = BundleTask(data, bundles, config, inputs, sections["model"], space)
    tuning = task.tuning(mesh, train.seed)
    groups.check(how, task.factory, tuning.trained)
    optimizer.make(how, train.steps, tuning.config)  # for what it refuses, before anything is written
    facts = {**sections, "task": NAME, "dataset_fingerprint": fingerprint(shop), "vocab_size": task.factory.vocab_size, "synthetic": shop.synthetic}
    facts |= {"dataset_name": shop.manifest["name"], "controls": {}, "counts": {"bundles": len(bundles), "train": len(bundles.of("train"))}}
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    batches = task.sets.train_batches(inputs, seed=train.seed, process=share[0], processes=share[1])
    mesh_lib.meet("workdir read")
    if jax.process_index() == 0:
        workdir.write(train.workdir, facts)
        _write_space(train.workdir, space)
    mesh_lib.meet("workdir written")
    if jax.process_count() > 1:  # each computed its own: all go by the one that was kept
        batches.close()
        task = BundleTask(data, bundles, config, inputs, sections["model"], read_space(train.workdir, data))
        tuning = task.tuning(mesh, train.seed)
        batches = task.sets.train_batches(inputs, seed=train.seed, process=share[0], processes=share[1])
    judge = Judge(f"val_ndcg@{K}", -1)
    return Loop(task.factory, task.loss(), batches, lambda: iter(()), lambda *_: [], train, how, mesh, tuning, task.validator(), judge)


def fingerprint(shop: Shop) -> str:
    """What says that a shop is the same: its interactions' (or folder's), and its bundles' where they are no part of it."""
    raw = "files" not in shop.manifest and shop.bundles is not None
    return f"{shop.fingerprint}-{shop.bundles.fingerprint()}" if raw else shop.fingerprint


def _refuse(sections: dict) -> None:
    train, inputs, how = sections["train"], sections["input"], sections["optimizer"]
    if train.init_from or train.ewc or inputs.replay or inputs.distill or sections["adapter"] != AdapterConfig():
        raise UserError(f"--task={NAME} begins from scratch on one shop; leave --init_from, --adapter, --freeze, --ewc, --replay and --distill out.")
    shop = dataclasses.replace(sections["shop"], source="", layout="")
    usual = ((shop, ShopConfig()), (sections["behaviour"], BehaviourConfig()))
    changed = [f.name for given, default in usual for f in dataclasses.fields(default) if getattr(given, f.name) != getattr(default, f.name)]
    if changed:
        raise UserError(f"--{changed[0]} is for a model of behaviour and means nothing to --task={NAME}; leave it out.")
    if how.preference != "none":
        raise UserError(f"--preference={how.preference} tunes reasons and means nothing to --task={NAME}; leave it out.")
    if how.rdrop or how.fgm or how.code_contrast or how.label_smoothing:
        raise UserError(f"--rdrop, --fgm, --code_contrast and --label_smoothing mean nothing to --task={NAME}; leave them out.")


def weights(task: BundleTask, trained: dict, mesh: jax.sharding.Mesh) -> dict:
    """All parameters from the trained ones of a checkpoint."""
    placed = sharding.parameters(task.factory.abstract, mesh)
    return trees.join(trained, {CONTENT: task.descriptions(placed[CONTENT])})
