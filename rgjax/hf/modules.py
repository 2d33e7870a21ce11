"""Torch modules of a family against our matrices: what an adapter's tensors are named after, and how its columns lie."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from rgjax import trees
from rgjax.hf.table import Family, Rule
from rgjax.models.adapted import AdaptedFactory
from rgjax.models.build import ModelFactory
from rgjax.nn.adapters.lowrank import INPUT_AXES

SUFFIX = ".weight"


@dataclasses.dataclass(frozen=True)
class Linear:
    """One linear module of every layer (`name` holds `{i}`) and the paths of our matrices [L, *I, *O] that make it, in its column order.

    GPT-2's c_attn is made of three: queries, keys and values. `inputs` and `outputs` are the folded widths, the latter per part.
    """

    name: str
    parts: tuple[str, ...]
    layers: int
    inputs: int
    outputs: tuple[int, ...]

    def at(self, layer: int) -> str:
        """The module's name in one layer."""
        return self.name.format(i=layer)


def linears(factory: ModelFactory, family: Family) -> Iterator[Linear]:
    """Every numbered linear module of a model of ours, as the family names it."""
    shapes = {".".join(map(str, path)): v.get_value().shape for path, v in _leaves(factory)}
    numbered = [r for r in family.rules(factory.config) if "{i}" in r.theirs and r.theirs.endswith(SUFFIX) and _matrix(r)]
    for name, rules in itertools.groupby(numbered, key=lambda rule: rule.theirs):
        parts = tuple(rule.ours for rule in rules)
        shape, n = shapes[parts[0]], INPUT_AXES.get(parts[0].rsplit(".", 1)[1], 1)
        outputs = tuple(math.prod(shapes[p][1 + n :]) for p in parts)
        yield Linear(name.removesuffix(SUFFIX), parts, shape[0], math.prod(shape[1 : 1 + n]), outputs)


def _leaves(factory: ModelFactory):
    from flax import nnx

    return nnx.to_flat_state(factory.abstract)


def _matrix(rule: Rule) -> bool:
    return rule.ours.rsplit(".", 1)[1] in ("wq", "wk", "wv", "wo", "w_in", "w_gate", "w_out")


def targeted(factory: AdaptedFactory, family: Family, adapter: dict) -> list[Linear]:
    """The modules of which an adapter has values for any part."""
    return [m for m in linears(factory.base, family) if any(trees.at(adapter, p) is not None for p in m.parts)]


def names(chosen: list[Linear], every: list[Linear]) -> list[str]:
    """What PEFT's `target_modules` must hold to mean `chosen` only: last names where those are unambiguous, else whole ones."""
    last = lambda m: m.name.rsplit(".", 1)[1]
    found = []
    for module in chosen:
        others = {last(m) for m in every if m not in chosen}
        found += [last(module)] if last(module) not in others and last(module) != "dense" else [module.at(i) for i in range(module.layers)]
    return sorted(set(found))


def stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of all layers as one, padded with zeros where layers differ in rank."""
    shape = np.max([a.shape for a in arrays], axis=0)
    return np.stack([np.pad(a, [(0, n - m) for n, m in zip(shape, a.shape, strict=True)]) for a in arrays]).astype(np.float32)
