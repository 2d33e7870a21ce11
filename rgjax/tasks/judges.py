"""Who judges control codes: classifiers that learn from references. Those of a report and those of a reward learn from different ones."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rgjax.data import length_bands
from rgjax.data.dataset import Dataset
from rgjax.data.length_bands import LengthBands
from rgjax.errors import UserError
from rgjax.metrics.judge import Judge

TRAIN_LIMIT = 100_000  # training examples that judges and floors draw on; more would only slow them
LEAST_TEXTS = 10  # references that a value needs for its judge to learn it
FOR_REPORTS, FOR_REWARDS = 1, 0  # which of each two neighbouring references they learn from


def check(dataset: Dataset, split: str) -> None:
    """Raises UserError where a split's reasons were written by a model: who learned from them would judge it by its own words."""
    if split == "train" and dataset.origin:
        raise UserError(
            f"The training reasons of {dataset.folder} were written by a model, and judges learn from people's; give the dataset that they were "
            "written for with --dataset."
        )


def lessons(examples: Sequence[dict], half: int) -> Sequence[dict]:
    """Those that judges learn from: every other one, from the first or second on."""
    return examples[half::2]


def references(dataset: Dataset, split: str, half: int) -> Sequence[dict]:
    """The `lessons` that the examples of a split give, of the first `TRAIN_LIMIT`."""
    return lessons(list(itertools.islice(dataset.examples(split), TRAIN_LIMIT)), half)


class Learned(NamedTuple):
    """Who judges a code: the values it knows, and what it learned from."""

    judge: Judge
    values: list[str]
    texts: int


def learn(name: str, values: Sequence[str], examples: Sequence[dict]) -> Learned | None:
    """From the references that have a value of the code; None where there are not two values with enough of them."""
    labelled = [(e["reason"], e["control"][name]) for e in examples if e["control"].get(name)]
    counts = Counter(value for _, value in labelled)
    known = [value for value in values if counts[value] >= LEAST_TEXTS]
    if len(known) < 2:
        return None
    judge = Judge.fit(*zip(*[pair for pair in labelled if pair[1] in known], strict=True))
    return Learned(judge, known, sum(counts[value] for value in known))


def bands(dataset: Dataset) -> LengthBands | None:
    """The bands of a dataset whose code for lengths was measured, else None."""
    found = (dataset.manifest.get("derived_controls") or {}).get(length_bands.NAME) or {}
    return LengthBands(found["unit"], tuple(found["bounds"])) if found.get("how") == "measured" else None


def of_bands(found: LengthBands) -> Callable[[Sequence[str]], list[str]]:
    """A judge that measures."""
    return lambda texts: [found.of(text) for text in texts]
