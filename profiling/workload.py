"""The training step that a flagfile describes, put together as launch.train does it, on fresh weights: what every profile here looks at.

Weights of --init_from are not read, only its shape: how long a step takes, and what it holds, does not depend on their values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from launch import app
from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.train.workdir import SECTIONS

CONFIGS = tuple(SECTIONS.values())


def sections() -> dict:
    """The configurations from the flags, by the names of `workdir.SECTIONS`; raises UserError for values out of range."""
    return {name: app.read(cls) for name, cls in SECTIONS.items()}


@dataclasses.dataclass
class Workload:
    """A run's training step and what it reads. `batches()` are the run's own, from its beginning, arrays [rows, ...] on the host."""

    sections: dict
    factory: Any
    loss: Callable
    mesh: Any
    batches: Callable[[], Iterator[dict]] | None  # None without a dataset

    @classmethod
    def open(cls, sections: dict, vocab_size: int = 0) -> Workload:
        """Of the dataset; or, where none is given, of shapes alone, with `vocab_size` tokens. Raises UserError for what does not fit."""
        from rgjax.parallel import cluster, sharding
        from rgjax.parallel import mesh as mesh_lib

        if sections["train"].ewc:
            raise UserError("--ewc needs an earlier task's data at every start; profiles look at the step without it, leave it out.")
        if (what := sections["train"].task) not in ("reason", "behaviour"):
            raise UserError(f"--task={what} has steps that are not looked at here; give --task=reason or --task=behaviour.")
        cluster.start(optimization_level=sections["train"].optimization_level)
        mesh = mesh_lib.make(sections["train"].mesh)
        sharding.check_batch(sections["input"].batch_size, mesh, sections["optimizer"].accumulate)
        if sections["train"].task == "behaviour":
            return cls._of_shop(sections, mesh)
        return cls._of_dataset(sections, mesh) if sections["input"].dataset else cls._of_shapes(sections, mesh, vocab_size)

    @classmethod
    def _of_dataset(cls, sections: dict, mesh) -> Workload:
        from rgjax.tasks import reason, training
        from rgjax.tasks.run import open_source

        inputs, optimizer, train = sections["input"], sections["optimizer"], sections["train"]
        dataset, tokenizer = reason.dataset_tokenizer(inputs.dataset)
        if train.init_from:
            model = open_source(train.init_from).configure(sections["model"], app.given(ModelConfig), tokenizer)
            sections = sections | {"model": model}
        _no_pairs(optimizer)
        task = reason.ReasonTask(tokenizer, inputs, sections["model"], sections["adapter"])
        replay, teacher = task.replayed(dataset), task.teacher(dataset, optimizer.distill_temperature)
        batches = lambda: task.training_data(dataset, train.seed, replay, teacher)
        return cls(sections, task.factory, training.loss_of(task, optimizer, teacher, dataset.controls), mesh, batches)

    @classmethod
    def _of_shop(cls, sections: dict, mesh) -> Workload:
        from rgjax.data import shop_folder
        from rgjax.tasks.shop.behaviour import BehaviourTask

        inputs, shop = sections["input"], sections["shop"]
        data = shop_folder.open_any(inputs.dataset, shop.layout, shop.source).interactions
        task = BehaviourTask(data, shop, sections["behaviour"], inputs, sections["model"])
        seed, smoothing = sections["train"].seed, sections["optimizer"].label_smoothing
        return cls(sections, task.factory, task.loss(smoothing), mesh, lambda: task.training_data(seed))

    @classmethod
    def _of_shapes(cls, sections: dict, mesh, vocab_size: int) -> Workload:
        from rgjax.models.adapted import AdaptedFactory
        from rgjax.models.build import ModelFactory
        from rgjax.tasks import reason

        model, optimizer, adapter = sections["model"], sections["optimizer"], sections["adapter"]
        _no_pairs(optimizer)
        needs = {"distill": sections["input"].distill, "init_from": sections["train"].init_from, "adapter=vectors": adapter.adapter == "vectors"}
        needs |= {"code_contrast": optimizer.code_contrast}
        if missing := next((name for name, value in needs.items() if value), None):
            raise UserError(f"--{missing} can't be looked at without data; give --dataset too.")
        factory = ModelFactory(model, model.embeddings or vocab_size)
        factory = factory if adapter.adapter == "none" else AdaptedFactory(factory, adapter)
        loss = functools.partial(reason.sums, smoothing=optimizer.label_smoothing, rdrop=optimizer.rdrop, fgm=optimizer.fgm)
        return cls(sections, factory, loss, mesh, None)

    @property
    def tuning(self):
        """What is trained."""
        from rgjax.train import adalora
        from rgjax.train.tuning import Tuning

        config = self.sections["adapter"]
        return Tuning(config, penalties=(adalora.orthogonality(config),) if config.adapter == "adalora" else ())

    @property
    def tx(self):
        """The run's optimizer."""
        from rgjax.train import optimizer

        return optimizer.make(self.sections["optimizer"], self.sections["train"].steps, self.sections["adapter"])

    def step(self):
        """A new jitted `train_step(state, fixed, batch) -> (state, metrics)`; the state is donated."""
        from rgjax.train import step

        config, skip = self.sections["optimizer"], self.sections["train"].nonfinite == "skip"
        return step.make_train_step(self.factory, self.loss, self.tx, config, self.tuning.penalty, skip, self.abstract_state())

    def abstract_state(self):
        """The state as ShapeDtypeStructs with shardings."""
        from rgjax.train import state

        ema, seed = self.sections["optimizer"].ema > 0, self.sections["train"].seed
        return state.abstract_state(self.factory, self.tx, self.mesh, ema, seed, self.tuning.trained)

    def begin(self):
        """(a fresh state, the fixed arrays), on the mesh."""
        from rgjax.train import state

        ema, seed = self.sections["optimizer"].ema > 0, self.sections["train"].seed
        now, frozen = state.create(self.factory, self.tx, self.mesh, ema, seed, None, self.tuning.trained)
        return now, {"weights": frozen}

    def put(self, batch: dict):
        """A host batch as the step reads it, on the mesh."""
        from rgjax.parallel import sharding
        from rgjax.train.preference import together

        config = self.sections["optimizer"]
        return sharding.put(batch, self.mesh, config.accumulate, together(config))

    def abstract(self, rows: int = 0):
        """(state, fixed, batch) as ShapeDtypeStructs with shardings; the batch of the longest shape, `rows` (--batch_size by default) of it."""
        import jax
        from flax import nnx

        from rgjax import trees
        from rgjax.parallel import sharding

        accumulate = self.sections["optimizer"].accumulate
        _, frozen = trees.divide(nnx.to_pure_dict(self.factory.abstract), self.tuning.trained)
        _, where = trees.divide(sharding.parameters(self.factory.abstract, self.mesh), self.tuning.trained)
        fixed = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), frozen, where)
        place, rows = sharding.batch(self.mesh, leading=1), rows or self.sections["input"].batch_size
        batch = {
            name: jax.ShapeDtypeStruct((accumulate, rows // accumulate, *tail), kind, sharding=place)
            for name, (tail, kind) in self._columns().items()
        }
        return self.abstract_state(), {"weights": fixed}, batch

    def _columns(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Of each array of a batch: its shape without the rows, and its type."""
        import numpy as np

        from rgjax.data.shape import Shape

        if self.sections["train"].task == "behaviour":
            return {name: (array.shape[1:], array.dtype) for name, array in self.first.items()}
        inputs, architecture = self.sections["input"], self.sections["model"].architecture
        shape = Shape.of(inputs, architecture)
        found = {name: ((shape.length,), np.int32) for name in ("tokens", "targets", "weights", "segment_ids", "positions")}
        if shape.encoder_length:
            found |= {f"encoder_{name}": ((shape.encoder_length,), np.int32) for name in ("tokens", "segment_ids", "positions")}
        found |= {f"{side}segment_lengths": ((shape.examples,), np.int32) for side in ("", "encoder_") if f"{side}segment_ids" in found}
        if self.batches is not None:
            for name, array in self.first.items():  # what a teacher or vectors add
                tail = array.shape[1:] if name == "vectors" else (shape.length, *array.shape[2:])
                found.setdefault(name, (tail, array.dtype))
        return found

    def compiled(self, rows: int = 0):
        """The step compiled for `abstract(rows)`; nothing is computed."""
        return self.step().lower(*self.abstract(rows)).compile()

    def pieces(self) -> float:
        """Of how many pieces the first batch's loss is computed: those in which a row has a target; without a dataset, of all there are."""
        import numpy as np

        from rgjax.train.loss import positions

        parts, rows, length = self.abstract()[2]["weights"].shape
        chunk = positions(max(1, rows // (self.mesh.shape["data"] * self.mesh.shape["fsdp"])), length)  # of the rows of a device
        if self.batches is None:
            return -(-length // chunk)
        most = np.count_nonzero(self.first["weights"], axis=1).reshape(parts, -1).max(axis=1)
        return float(np.mean(np.ceil(most / chunk)))

    @functools.cached_property
    def first(self) -> dict:
        """The run's first batch, arrays [rows, ...] on the host."""
        stream = self.batches()
        try:
            return next(stream)
        finally:
            stream.close()


def facts() -> dict:
    """What every measurement is told with: `device` and `versions`."""
    import importlib.metadata
    import os

    import jax

    kind = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    return {"device": kind, "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}}


def memory_of(compiled) -> dict[str, int]:
    """Bytes a device that a compiled step needs: its `arguments`, its `temporaries`, and the `peak` of both with what it gives back."""
    stats = compiled.memory_analysis()
    own, temporary = stats.argument_size_in_bytes, stats.temp_size_in_bytes
    return {"arguments": own, "temporaries": temporary, "peak": own + temporary + stats.output_size_in_bytes - stats.alias_size_in_bytes}


def _no_pairs(config) -> None:
    if config.preference != "none":
        raise UserError(f"--preference={config.preference} is not looked at here; leave it out, a step on as many rows costs about as much.")
