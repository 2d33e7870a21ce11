"""Pairs of reasons for the same example -> batches, as rgjax/data/pipeline.py makes them of single ones: each text alone in its row.

Rows 2i and 2i + 1 are a pair, the preferred reason first. A further array `reference`, float32 [rows], holds a number for each text, 0 until
it is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.data import buckets, streams
from rgjax.data.dataset import Dataset
from rgjax.data.pipeline import as_fed, pad_rows
from rgjax.data.shape import Shape
from rgjax.data.streams import Streams
from rgjax.data.template import Template
from rgjax.errors import UserError

Both = list[dict[str, np.ndarray]]  # the two texts' arrays, unpadded


class Pairs:
    """The pairs of a split, by number."""

    def __init__(self, dataset: Dataset, split: str, template: Template, config: InputConfig, architecture: str):
        self.source, self.where = dataset.source(split), f"{dataset.folder}, {split} example"
        self.template, self.architecture = template, architecture
        self.config = dataclasses.replace(config, loss_on="reason", packing=False, row_length=0, row_examples=0)
        self.shape = Shape.of(self.config, architecture, alone=True)
        self.numbers = range(len(self.source))  # of its examples, which are taken
        self.reference_N2 = np.zeros((len(self.source), 2), np.float32)

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self) -> Pairs:
        """Itself, without the examples that have no rejected reason."""
        self.numbers = [i for i in self.numbers if self.source[i].get("rejected")]
        self.reference_N2 = self.reference_N2[self.numbers]
        return self

    def check(self) -> None:
        """Raises UserError for an example without a rejected reason."""
        for i in self.numbers:
            if not self.source[i].get("rejected"):
                raise UserError(f"{self.where} {i} has no 'rejected' reason; prepare a dataset of pairs, as --layout=preferences does.")

    def __getitem__(self, index: int) -> Both:
        example = self.source[self.numbers[int(index)]]
        texts = (example, example | {"reason": example["rejected"]})
        return [as_fed(text, self.template, self.config, self.architecture) for text in texts]

    def batch(self, numbers, shape: Shape, rows: int) -> dict[str, np.ndarray]:
        """The pairs of these numbers [rows, ...], the rest of the rows empty."""
        out = pad_rows([_cut(text, shape) for number in numbers for text in self[number]], shape, rows)
        out["reference"] = np.zeros(rows, np.float32)
        out["reference"][: 2 * len(numbers)] = self.reference_N2[np.asarray(numbers, int)].ravel()
        return out


def _cut(arrays: dict[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    return {name: values[: shape.encoder_length if name.startswith("encoder") else shape.length] for name, values in arrays.items()}


def train_batches(pairs: Pairs, config: InputConfig, *, seed: int, process: int = 0, processes: int = 1) -> Streams:
    """Endless batches of this process's rows, each batch of one length bucket; raises UserError where rows do not divide or pairs are too few."""
    if len(pairs) < config.batch_size // 2:
        most = 2 * len(pairs)
        raise UserError(f"--batch_size={config.batch_size} has more rows than the {len(pairs)} training pairs; lower it to {most} or less.")
    sizes_N2 = np.array([np.max([buckets.sizes(text) for text in pairs[i]], axis=0) for i in range(len(pairs))])
    shapes = buckets.shapes(config.buckets, pairs.shape, sizes_N2)
    plan = buckets.Plan(buckets.of(sizes_N2, shapes), len(shapes), config.batch_size // 2, seed, len(pairs), 0.0)

    def stream(number: int, total: int) -> grain.IterDataset:
        rows = config.batch_size // total
        if rows % 2:
            raise UserError(f"--streams={total} leaves each {rows} rows of --batch_size={config.batch_size}, and pairs need an even number.")

        def chunk(index: int, _) -> dict[str, np.ndarray]:
            which, members = plan[index]
            return pairs.batch(members[number * rows // 2 : (number + 1) * rows // 2], shapes[which], rows)

        return grain.MapDataset.range(plan.batches_per_epoch).repeat().map_with_index(chunk).to_iter_dataset(streams.READ)

    return streams.deal(stream, config, len(pairs), "pairs", process, processes)


def eval_batches(pairs: Pairs, rows: int, limit: int = 0, process: int = 0, processes: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Every pair once, in order, in this process's rows of full batches; the last has empty rows. `limit` bounds their number."""
    starts = range(0, len(pairs), rows // 2)[: limit or None]
    for at in starts:
        whole = pairs.batch(range(at, min(at + rows // 2, len(pairs))), pairs.shape, rows)
        yield {name: values[process * rows // processes : (process + 1) * rows // processes] for name, values in whole.items()}
