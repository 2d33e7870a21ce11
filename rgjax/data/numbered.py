"""Training examples -> batches that say which they are: one a row, as rgjax/data/pipeline.py makes them, with two further arrays int32 [rows]:
`example`, its number, and `control`, 0 where its control codes are dropped (--control_dropout)."""

from __future__ import annotations

import dataclasses

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.data import streams
from rgjax.data.dataset import Dataset
from rgjax.data.pipeline import Shape, as_fed, pad_rows
from rgjax.data.streams import Streams
from rgjax.data.template import Template
from rgjax.errors import UserError

FACTS = ("example", "control")

def train_batches(dataset: Dataset, template: Template, config: InputConfig, architecture: str, *, seed: int) -> Streams:
    """Endless batches [batch_size, ...], shuffled by `seed` and anew every epoch; raises UserError when a batch is larger than the data."""
    source = dataset.source("train")
    if config.batch_size > len(source):
        raise UserError(f"--batch_size={config.batch_size} is larger than the {len(source)} training examples; lower it.")
    config = dataclasses.replace(config, loss_on="reason")
    shape = Shape.of(config, architecture, alone=True)

    def row(number, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shown = rng.random() >= config.control_dropout
        arrays = as_fed(source[int(number)], template, config, architecture, with_control=shown)
        facts = {"example": np.int32(number), "control": np.int32(shown)}
        return {name: values[0] for name, values in pad_rows([arrays], shape, 1).items()} | facts

    def stream(number: int, total: int) -> grain.IterDataset:
        mine = grain.MapDataset.range(len(source)).seed(seed).shuffle().random_map(row).repeat()[number::total]
        return mine.batch(config.batch_size // total, drop_remainder=True).to_iter_dataset(streams.READ)

    return streams.deal(stream, config, len(source), "training examples", 0, 1)
