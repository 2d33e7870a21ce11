"""A model whose matrices and token tables are kept in int8: the same calls, for writing and measuring.

As with adapters the model's code knows nothing of it: parts of the assembled module are replaced by what stands for them
(rgjax/nn/quantized.py). Norms, biases and positions stay float32. An adapter goes on top unchanged (as in QLoRA, Dettmers et al. 2023,
arXiv:2305.14314, which keeps the matrices in four bits instead).
"""

from __future__ import annotations

import copy
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rgjax import trees
from rgjax.models.adapted import MATRIX, AdaptedFactory, parent_of
from rgjax.models.build import ModelFactory
from rgjax.nn.adapters.lowrank import INPUT_AXES
from rgjax.nn.quantized import Int8Matrix, Int8Table, quantize

TABLE = re.compile(r"^embedding\.(tokens|output)$")


class QuantizedFactory:
    """As ModelFactory, for the weights that `in_int8` makes."""

    def __init__(self, inner: ModelFactory):
        self.inner, self.abstract = inner, inner.abstract
        self.config, self.vocab_size, self.count = inner.config, inner.vocab_size, inner.count
        paths = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(inner.abstract)]
        self.paths = [path for path in paths if MATRIX.search(path) or TABLE.search(path)]

    @property
    def base(self) -> QuantizedFactory:
        """Itself, as ModelFactory's."""
        return self

    def model(self, weights: dict, vectors_BMZ: jax.Array | None = None):
        """The model holding `weights`."""
        _, floats = trees.divide(weights, lambda path: path.rpartition(".")[0] in self.paths)
        made = self.inner.model(floats)
        for path in self.paths:
            parent, name = parent_of(made, path)
            kind = Int8Table if TABLE.search(path) else Int8Matrix
            setattr(parent, name, kind(**trees.at(weights, path)))
        return made


def lighter(factory: ModelFactory | AdaptedFactory) -> QuantizedFactory | AdaptedFactory:
    """The factory for the weights of `in_int8`; an adapter stays what it is, on a base in int8."""
    if not isinstance(factory, AdaptedFactory):
        return QuantizedFactory(factory)
    made = copy.copy(factory)
    made.base = QuantizedFactory(factory.base)
    return made


def in_int8(factory: ModelFactory | AdaptedFactory, weights: dict) -> dict:
    """The model's weights with `q` int8 and `s` float32 in place of each matrix and table; rounded on the host."""
    light, leaves = QuantizedFactory(factory.base), []
    for path, leaf in trees.flat(weights):
        if path not in light.paths:
            leaves.append((path, leaf))
            continue
        q, s = quantize(np.asarray(leaf), input_axes(path))
        leaves += [(f"{path}.q", jnp.asarray(q)), (f"{path}.s", jnp.asarray(s))]
    return trees.nested(leaves)


def input_axes(path: str) -> tuple[int, ...]:
    """The axes of a matrix [L, *I, *O] or table [V, D] that products sum over."""
    return (1,) if TABLE.search(path) else tuple(range(1, 1 + INPUT_AXES.get(path.rsplit(".", 1)[1], 1)))
