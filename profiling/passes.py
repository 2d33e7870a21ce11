"""A pass over few batches that is like the epoch it is drawn from, for comparisons that can't read all of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

DRAWS = 200  # of which the fairest is taken


def drawn(epoch: list[dict], count: Callable[[dict], dict[str, int]], examples: int, seed: int) -> tuple[list[dict], dict]:
    """(batches of the epoch that hold so many examples, what they and under `epoch` all of them hold); `count` counts one."""
    counts = [count(batch) for batch in epoch]
    chosen = fair_sample(counts, examples, seed)
    return [epoch[i] for i in chosen], sums([counts[i] for i in chosen]) | {"epoch": sums(counts)}


def fair_sample(counts: list[dict[str, int]], examples: int, seed: int) -> list[int]:
    """Which batches of an epoch that holds as many examples or more, told by their counts, make a pass of so many.

    In order of size they are cut into equal parts, and one is drawn from each: the first of a sorted order would be all of the longest.
    Of many such draws the one whose means of an example are nearest the epoch's is taken, as few batches differ much by chance.
    """
    order, rng = sorted(range(len(counts)), key=lambda i: (counts[i]["slots"], counts[i]["tokens"])), np.random.default_rng(seed)
    table = np.array([[c[name] for name in ("examples", "tokens", "target_tokens", "slots")] for c in counts], float)
    means = lambda rows: rows[:, 1:].sum(axis=0) / rows[:, 0].sum()
    parts = np.array_split(order, min(len(order), math.ceil(examples / table[:, 0].mean())))
    while True:
        draws = [sorted(int(rng.choice(part)) for part in parts) for _ in range(DRAWS)]
        if held := [d for d in draws if table[d, 0].sum() >= examples]:
            return min(held, key=lambda d: np.abs(means(table[d]) / means(table) - 1).max())
        parts = np.array_split(order, len(parts) + 1)


def sums(counts: list[dict[str, int]]) -> dict:
    """Of batches: steps, examples, real and target tokens, slots and the share of them that is padding, and means of an example."""
    total = {key: sum(c[key] for c in counts) for key in counts[0]}
    means = {f"mean_{name}": total[name] / total["examples"] for name in ("tokens", "target_tokens")}
    return {"steps": len(counts), **total, "padded_share": 1 - total["tokens"] / total["slots"], **means}
