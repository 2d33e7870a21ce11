"""A model as a decoding loop reads it: what is the same at every step is made ready before the loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp


class Columns:
    """An output matrix as [D, V]; stands for one in `nn.linear.scores`."""

    def __init__(self, table_DV: jax.Array):
        self.table_DV = table_DV

    def scores(self, x: jax.Array) -> jax.Array:
        """Float32 products [..., V]."""
        return jnp.matmul(x, self.table_DV, preferred_element_type=jnp.float32)


class Unrolled:
    """A model's calls for continuing prompts. Blocks are cut out of their stack once: in a loop's body XLA would copy each at every step.

    On a CPU the output matrix is also transposed: its product with few rows is faster so, and the copy is small beside what a GPU holds.
    """

    def __init__(self, model):
        self.model, self.config, self._blocks = model, model.config, model.blocks()
        self._head, self._shrink = model.head()
        if jax.default_backend() == "cpu" and hasattr(self._head, "dtype"):
            self._head = Columns(self._head.T.astype(self.config.dtype))

    def decode(self, *args):
        """As the model's."""
        return self.model.decode(*args, blocks=self._blocks)

    def head(self) -> tuple:
        """As the model's."""
        return self._head, self._shrink
