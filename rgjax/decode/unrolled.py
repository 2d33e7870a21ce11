"""A model as a decoding loop reads it: what is the same at every step is made ready before the loop."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.nn.adapters.lowrank import INPUT_AXES
from rgjax.nn.turned import Turned, TurnedTable

FEW = 32  # rows up to which a turned matrix is the faster one
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

    blocks: list | None = None
    head: Columns | TurnedTable | None = None


def ready(model, rows: int) -> Ready:
    """What a CPU multiplies `rows` rows by at every step, laid out as it does so fastest, in the type that is computed in.

    A copy of the matrices (for more than FEW rows of the output matrix alone), so it is made once for all batches. Nothing elsewhere.
    """
    if jax.default_backend() != "cpu":
        return Ready()
    head, _ = model.head()
    head = head.astype(model.config.dtype) if hasattr(head, "dtype") else None
    if rows > FEW:
        return Ready(head=head if head is None else Columns(head.T))
    return Ready([_turn(block, model.config.dtype) for block in model.blocks()], head if head is None else TurnedTable(head))


def _turn(block, dtype):
    """The block with its matrices turned, but those that an adapter or int8 holds."""
    for part, names in PARTS.items():
        for name in names:
            w = getattr(getattr(block, part, None), name, None)
            if isinstance(w, nnx.Param):
                setattr(getattr(block, part), name, Turned(w[...].astype(dtype), INPUT_AXES.get(name, 1)))
    return block


class Unrolled:
    """A model's calls for continuing prompts. Blocks are cut out of their stack once: in a loop's body XLA would copy each at every step."""

    def __init__(self, model, made: Ready):
        """`made` is what `ready` gave."""
        self.model, self.config = model, model.config
        self._blocks = model.blocks() if made.blocks is None else made.blocks
        head, self._shrink = model.head()
        self._head = head if made.head is None else made.head

    def decode(self, *args, **kwargs):
        """As the model's."""
        return self.model.decode(*args, **kwargs, blocks=self._blocks)

    def head(self) -> tuple:
        """As the model's."""
        return self._head, self._shrink
