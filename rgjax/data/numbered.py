"""Training examples -> batches that say which they are: one a row, as rgjax/data/pipeline.py makes them, with two further arrays int32:
`example` [rows], its number, and `control` [rows, C], which value of each of the dataset's C codes it is shown with, from 1 on; 0 is none."""

from __future__ import annotations

import dataclasses

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.data import streams
from rgjax.data.dataset import Dataset
from rgjax.data.pipeline import as_fed, pad_rows
from rgjax.data.shape import Shape
from rgjax.data.streams import Streams
from rgjax.data.template import Template
from rgjax.errors import UserError

FACTS = ("example", "control")


def numbers(control: dict[str, str], declared: dict[str, list[str]]) -> np.ndarray:
    """Which value of each declared code it is, int32 [C], from 1 on; 0 is none."""
    return np.array([1 + values.index(control[name]) if control.get(name) else 0 for name, values in declared.items()], np.int32)


def control(numbers_C: np.ndarray, declared: dict[str, list[str]]) -> dict[str, str]:
    """The inverse of `numbers`."""
    return {name: values[n - 1] for n, (name, values) in zip(numbers_C, declared.items(), strict=True) if n}


def train_batches(
    dataset: Dataset, template: Template, config: InputConfig, architecture: str, *, seed: int, any_codes: bool = False
) -> Streams:
    """Endless batches [batch_size, ...], shuffled by `seed` and anew every epoch; with `any_codes` each example is shown with values that are drawn
    for all codes, not its own. Raises UserError when a batch is larger than the data."""
    source = dataset.source("train")
    if config.batch_size > len(source):
        raise UserError(f"--batch_size={config.batch_size} is larger than the {len(source)} training examples; lower it.")
    config = dataclasses.replace(config, loss_on="reason")
    shape = Shape.of(config, architecture, alone=True)

    def row(number, rng: np.random.Generator) -> dict[str, np.ndarray]:
        example, shown = source[int(number)], rng.random() >= config.control_dropout
        if any_codes:
            example = example | {"control": {name: values[rng.integers(len(values))] for name, values in dataset.controls.items()}}
        arrays = as_fed(example, template, config, architecture, with_control=shown)
        facts = {"example": np.int32(number), "control": numbers(example["control"] if shown else {}, dataset.controls)}
        return {name: values[0] for name, values in pad_rows([arrays], shape, 1).items()} | facts

    def stream(number: int, total: int) -> grain.IterDataset:
        mine = grain.MapDataset.range(len(source)).seed(seed).shuffle().random_map(row).repeat()[number::total]
        return mine.batch(config.batch_size // total, drop_remainder=True).to_iter_dataset(streams.READ)

    return streams.deal(stream, config, len(source), "training examples", 0, 1)
