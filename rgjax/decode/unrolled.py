"""A model as a decoding loop reads it: what is the same at every step is made ready before the loop."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn.adapters.lowrank import INPUT_AXES
from rgjax.nn.turned import FEW, Turned, TurnedTable

PARTS = {"attention": ("wq", "wk", "wv", "wo"), "cross": ("wq", "wo"), "mlp": ("w_in", "w_gate", "w_out")}  # what a step multiplies by


class Columns(nnx.Module):
    """An output matrix as [D, V]; stands for one in `nn.linear.scores`."""

    def __init__(self, table_DV: jax.Array):
        self.table_DV = nnx.data(table_DV)

    def scores(self, x: jax.Array) -> jax.Array:
        """Float32 products [..., V]."""
        return jnp.matmul(x, self.table_DV, preferred_element_type=jnp.float32)


class Ready(NamedTuple):
    """What `ready` makes of a model; None is what the model has itself."""

    matrices: list[dict[str, dict[str, Turned]]] | None = None  # of each block by part and name; the output matrix is read turned then as well
    head: Columns | None = None


def ready(model, rows: int) -> Ready:
    """What a CPU multiplies `rows` rows by at every step, laid out as it does so fastest, in the type that is computed in.

    A copy of a block's matrices for up to FEW rows, of the output matrix for more, so it is made once for all batches. Nothing elsewhere.
    """
    if jax.default_backend() != "cpu":
        return Ready()
    if rows <= FEW:
        return Ready(matrices=[_turned(block, model.config.dtype) for block in model.blocks()])
    head, _ = model.head()
    return Ready(head=Columns(head.T.astype(model.config.dtype)) if hasattr(head, "dtype") else None)


def _turned(block, dtype) -> dict[str, dict[str, Turned]]:
    """The block's matrices, but those that an adapter or int8 holds."""
    found = {part: {name: getattr(getattr(block, part, None), name, None) for name in names} for part, names in PARTS.items()}
    turn = lambda name, w: Turned(w[...].astype(dtype), INPUT_AXES.get(name, 1))
    return {part: {name: turn(name, w) for name, w in held.items() if isinstance(w, nnx.Param)} for part, held in found.items()}


class Unrolled:
    """A model's calls for reading and continuing prompts. Blocks are cut out of their stack once: in a loop's body XLA would copy each at every
    step. Matrices that `made` holds are not cut out at all."""

    def __init__(self, model, made: Ready):
        """`made` is what `ready` gave."""
        self.model, self.config, self._blocks = model, model.config, model.blocks()
        for block, parts in zip(self._blocks, made.matrices or (), strict=False):
            for part, held in parts.items():
                for name, matrix in held.items():
                    setattr(getattr(block, part), name, matrix)
        head, self._shrink = model.head()
        few = made.matrices is not None and hasattr(head, "dtype")
        self._head = made.head or (TurnedTable(head.astype(model.config.dtype)) if few else head)

    def encode(self, batch: dict[str, jax.Array]) -> jax.Array:
        """As the encoder-decoder's."""
        return self.model.encode(batch)

    def cross_caches(self, source_BSD: jax.Array) -> list:
        """As the encoder-decoder's."""
        return self.model.cross_caches(source_BSD)

    def decode(self, *args, **kwargs):
        """As the model's."""
        return self.model.decode(*args, **kwargs, blocks=self._blocks)

    def head(self) -> tuple:
        """As the model's."""
        return self._head, self._shrink
