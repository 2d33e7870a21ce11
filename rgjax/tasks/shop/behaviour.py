"""The task of ranking: predict what a shopper takes next."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
import pyarrow.parquet as pq
from scipy.special import logsumexp

from rgjax.config import BehaviourConfig, InputConfig, ModelConfig, ShopConfig
from rgjax.data import behaviour, holdout, shop_folder, streams
from rgjax.data.interactions import Interactions
from rgjax.data.streams import Streams
from rgjax.errors import UserError
from rgjax.metrics import ranking
from rgjax.models.behaviour import BehaviourModel, table_rows
from rgjax.models.build import ModelFactory
from rgjax.nn import fused
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.rank.sequence import SequenceRecommender
from rgjax.train import groups, negatives, next_item, optimizer, profile, workdir
from rgjax.train.loop import Judge, Loop
from rgjax.train.tuning import ALL

NAME = "behaviour"
K = 10  # of the validation metrics
BUCKETS = {"rating": behaviour.RATING_BUCKETS, "gap": behaviour.GAP_BUCKETS, "price": behaviour.PRICE_BUCKETS}


class BehaviourTask:
    """Ties a shop's interactions and the model's configuration together."""

    def __init__(self, data: Interactions, shop: ShopConfig, config: BehaviourConfig, inputs: InputConfig, model: ModelConfig):
        if config.window > model.max_positions:
            raise UserError(f"--window={config.window} exceeds --max_positions={model.max_positions}; raise it.")
        if 0 < inputs.row_length < config.window:
            raise UserError(f"--row_length={inputs.row_length} is below --window={config.window}; raise it, or give 0.")
        self.data, self.config, self.inputs = data, config, inputs
        self.names = behaviour.feature_names(config)
        self.vectors = item_table(config.item_table, data) if config.item_table else None
        sizes = {name: BUCKETS.get(name, len(data.events)) for name in self.names if name != "vector"}
        width = 0 if self.vectors is None else self.vectors.shape[1]
        make = lambda config, rows, key: BehaviourModel(config, rows, key, sizes, width)
        self.factory = ModelFactory(model, table_rows(len(data.items)), make)
        self.split = holdout.split(data.named(), shop)

    def events(self, data: Interactions) -> behaviour.Events:
        """Events with the features that the model reads."""
        return behaviour.events(data, self.names, self.vectors)

    def loss(self, smoothing: float):
        """The step's loss function."""
        sampled = None if self.config.objective == "softmax" else negatives.sampler(self.config, self.split.train)
        return functools.partial(next_item.sums, config=self.config, sampler=sampled, smoothing=smoothing)

    def training_data(self, seed: int, share: tuple[int, int] = (0, 1)) -> Streams:
        """Endless batches of this process's share."""
        found = self.events(self.split.train)
        return behaviour.train_batches(found, self.config, self.inputs, seed=seed, process=share[0], processes=share[1])

    def recommender(self, params: dict, seen: Interactions) -> SequenceRecommender:
        """The model with these weights, which knows users by `seen`."""
        return SequenceRecommender(self.factory, params, self.events(seen), self.config.window)

    def validator(self, users: int, seed: int):
        """`measure(params)` on so many validation users, the same each time: loss, accuracy, HR and NDCG at 10 among unseen items."""
        asked = np.flatnonzero(self.split.warm(self.split.val) >= 0)
        asked = np.sort(np.random.default_rng(seed).permutation(asked)[:users])
        held, seen = self.split.val.items[asked], self.split.val.seen
        keep: list[SequenceRecommender] = []

        def measure(params: dict) -> dict[str, float]:
            keep[:] = [keep[0].using(params) if keep else self.recommender(params, seen)]
            scores = np.asarray(keep[0].scores(asked))
            nll = logsumexp(scores, axis=1) - scores[np.arange(len(held)), held]
            ranks = ranking.ranks(scores, held, seen.matrix[asked])
            found = {f"val_{name}@{K}": float(np.mean(values)) for name, values in ranking.at_ranks(ranks, K).items() if name in ("hr", "ndcg")}
            loss = float(nll.mean())
            return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 50)), "val_accuracy": float((ranks == 1).mean()), **found}

        return measure if len(asked) else None


def item_table(path: str, data: Interactions) -> np.ndarray:
    """float32 [I, Z], zeros for items without a vector; raises UserError when the table is unusable or knows no item."""
    try:
        table = pq.read_table(path, columns=["id", "vector"]).to_pydict()
        known = {str(name): np.asarray(vector, np.float32) for name, vector in zip(table["id"], table["vector"], strict=True)}
        found = np.zeros((len(data.items), len(next(iter(known.values())))), np.float32)
        for i, name in enumerate(data.items.ids):
            found[i] = known.get(name, 0.0)
    except (OSError, ValueError, KeyError, StopIteration, TypeError):
        raise UserError(f"--item_table={path} is no Parquet table with columns id and vector; write one with launch.embed.") from None
    if not np.isfinite(found).all():
        raise UserError(f"--item_table={path} has a vector that is not finite; mend it.")
    if not found.any():
        raise UserError(f"--item_table={path} has no vector of any item of the shop; its ids have to be the items'.")
    return found / max(float(np.sqrt(np.mean(found**2))), 1e-9)


def assemble(sections: dict, stored: dict | None, explicit: set[str]) -> Loop:
    """The loop of the configured run, its workdir written; as `rgjax.tasks.training.assemble`."""
    train, inputs, config = sections["train"], sections["input"], sections["behaviour"]
    profile.steps(train.profile_steps, train.steps)
    if train.init_from or train.ewc or inputs.replay or inputs.distill or sections["adapter"].adapter != "none":
        raise UserError(f"--task={NAME} begins from scratch on one shop; leave --init_from, --adapter, --ewc, --replay and --distill out.")
    how = sections["optimizer"]
    if how.rdrop or how.fgm or how.code_contrast or (how.label_smoothing and config.objective != "softmax"):
        what = "--rdrop, --fgm, --code_contrast, and --label_smoothing with sampled items,"
        raise UserError(f"{what} mean nothing to --task=behaviour; leave them out.")
    if how.preference != "none":
        raise UserError(f"--preference={how.preference} tunes reasons and means nothing to --task=behaviour; leave it out.")
    if sections["model"].block == "pointwise" and sections["model"].post_norm:
        raise UserError("--block=pointwise normalises before each layer; leave --post_norm out.")
    mesh = mesh_lib.make(train.mesh)
    fused.check(sections["model"], devices=mesh.size)
    share = mesh_lib.share(mesh)
    sections["input"] = inputs = streams.settled(inputs, share[1])
    sharding.check_batch(inputs.batch_size, mesh, sections["optimizer"].accumulate)
    shop = shop_folder.open_any(inputs.dataset, sections["shop"].layout, sections["shop"].source)
    task = BehaviourTask(shop.interactions, sections["shop"], config, inputs, sections["model"])
    groups.check(sections["optimizer"], task.factory, ALL.trained)
    optimizer.make(sections["optimizer"], train.steps, sections["adapter"])
    facts = {**sections, "task": NAME, "dataset_fingerprint": shop.fingerprint, "vocab_size": task.factory.vocab_size, "synthetic": shop.synthetic}
    facts |= {"dataset_name": shop.manifest["name"], "controls": {}, "counts": {"events": len(shop.interactions), "train": len(task.split.train)}}
    if train.patience and sections["shop"].train_on_validation:
        raise UserError(f"--patience={train.patience} watches validation events and --train_on_validation trains on them; leave one out.")
    data = task.training_data(train.seed, share)
    if stored:
        workdir.check_same(train.workdir, stored, facts)
    mesh_lib.meet("workdir read")
    if jax.process_index() == 0:
        workdir.write(train.workdir, facts)
    mesh_lib.meet("workdir written")
    # What was trained on can't choose a checkpoint: then the last one counts.
    measure = None if sections["shop"].train_on_validation else task.validator(train.eval_batches * inputs.batch_size, train.seed)
    loss = task.loss(sections["optimizer"].label_smoothing)
    judge = Judge(f"val_ndcg@{K}", -1)
    return Loop(task.factory, loss, data, lambda: iter(()), lambda *_: [], train, sections["optimizer"], mesh, ALL, measure, judge)
