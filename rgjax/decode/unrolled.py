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


def columns(model) -> jax.Array | None:
    """On a CPU the output matrix [D, V] in the type that is computed in: its product with few rows is faster so. Elsewhere, and where no array
    is that matrix, None."""
    head, _ = model.head()
    if jax.default_backend() != "cpu" or not hasattr(head, "dtype"):
        return None
    return head.T.astype(model.config.dtype)


class Unrolled:
    """A model's calls for continuing prompts. Blocks are cut out of their stack once: in a loop's body XLA would copy each at every step."""

    def __init__(self, model, head_DV: jax.Array | None):
        """`head_DV` is what `columns` gave."""
        self.model, self.config, self._blocks = model, model.config, model.blocks()
        self._head, self._shrink = model.head()
        if head_DV is not None:
            self._head = Columns(head_DV)

    def decode(self, *args, **kwargs):
        """As the model's."""
        return self.model.decode(*args, **kwargs, blocks=self._blocks)

    def head(self) -> tuple:
        """As the model's."""
        return self._head, self._shrink
