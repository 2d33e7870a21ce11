"""Negative items, drawn inside the jitted step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import BehaviourConfig
from rgjax.data import pools
from rgjax.data.interactions import Interactions
from rgjax.train.ranking_loss import MINUS


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """How negatives are drawn. `tables` by kind: `log_q` float32 [I] and `cumulative` [I] of the training counts (popularity, batch),
    `pool` int32 [U, M] (collaborative) or `near` int32 [I, M] (sequence), -1 where there is nothing."""

    kind: str
    count: int
    items: int
    hard: int
    tables: Mapping[str, np.ndarray]

    def draw(self, key: jax.Array, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(ids int32, whether each may count, log of its probability up to a constant), each [B, 1 or T, N], N = count x hard.

        'uniform', 'popularity' and 'batch' draw once for all positions of a row, the others for each position. What may not count is
        the position's own target (an accidental hit); with 'collaborative' and 'sequence' also every item of the window, and gaps.
        """
        ids, log_q = getattr(self, f"_{self.kind}")(key, batch, self.count * self.hard)
        counts = (ids >= 0) & (ids != batch["targets"][..., None])
        if self.kind in ("collaborative", "sequence"):
            counts &= ~_in_window(ids, batch)
        return jnp.maximum(ids, 0), counts, log_q

    def target_log_q(self, targets_BT: jax.Array) -> jax.Array:
        """Log of how probable a draw of the target is, up to the same constant as in `draw`; float32 [B, T]."""
        table = self.tables.get("log_q")
        return jnp.zeros(targets_BT.shape, jnp.float32) if table is None else jnp.asarray(table)[targets_BT]

    def _uniform(self, key, batch, count):
        ids = jax.random.randint(key, (len(batch["targets"]), 1, count), 0, self.items)
        return ids, jnp.zeros(ids.shape, jnp.float32)

    def _popularity(self, key, batch, count):
        ids = _by_weight(key, jnp.asarray(self.tables["cumulative"]), (len(batch["targets"]), 1, count))
        return ids, jnp.asarray(self.tables["log_q"])[ids]

    def _batch(self, key, batch, count):
        """Targets of the whole batch, each as probable as it is frequent there: in expectation, as in the training events."""
        places = _by_weight(key, jnp.cumsum(batch["weights"].reshape(-1).astype(jnp.float32)), (len(batch["targets"]), 1, count))
        ids = batch["targets"].reshape(-1)[places]
        return ids, jnp.asarray(self.tables["log_q"])[ids]

    def _collaborative(self, key, batch, count):
        return self._from(key, jnp.asarray(self.tables["pool"]), batch["users"], count)

    def _sequence(self, key, batch, count):
        return self._from(key, jnp.asarray(self.tables["near"]), batch["tokens"], count)

    def _from(self, key, table, rows_BT, count):
        """Entries of the table's rows, all of a row alike probable; no correction is known for what a row leaves out."""
        places = jax.random.randint(key, (*rows_BT.shape, count), 0, table.shape[1])
        ids = table[rows_BT[..., None], places]
        return ids, jnp.zeros(ids.shape, jnp.float32)


def _by_weight(key: jax.Array, cumulative: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    drawn = jax.random.uniform(key, shape) * cumulative[-1]
    return jnp.minimum(jnp.searchsorted(cumulative, drawn, side="right"), len(cumulative) - 1).astype(jnp.int32)


def _in_window(ids_BTN: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Whether each id is an item of its position's own window, as input or as target; bool [B, T, N]."""

    def row(ids_TN, tokens_T, targets_T, segments_T):
        same = segments_T[:, None] == segments_T[None, :]
        hit = lambda s: (ids_TN == tokens_T[s]) | (ids_TN == targets_T[s])
        body = lambda s, found: found | (hit(s) & same[:, s, None])
        return jax.lax.fori_loop(0, len(tokens_T), body, jnp.zeros(ids_TN.shape, bool))

    return jax.vmap(row)(ids_BTN, batch["tokens"], batch["targets"], batch["segment_ids"])


def sampler(config: BehaviourConfig, train: Interactions) -> Sampler:
    """The configured sampler with its tables made from the training events."""
    tables: dict[str, np.ndarray] = {}
    if config.sampler in ("popularity", "batch"):
        counts = train.counts.astype(np.float64)
        tables = {"cumulative": np.cumsum(counts).astype(np.float32)}
        tables["log_q"] = np.log(np.maximum(counts, 0.5) / counts.sum()).astype(np.float32)  # one never drawn can still be a target
    elif config.sampler == "collaborative":
        tables = {"pool": pools.collaborative(train, config.neighbours)}
    elif config.sampler == "sequence":
        tables = {"near": pools.near_items(train, config.neighbours)}
    return Sampler(config.sampler, config.negatives, len(train.items), config.hard, tables)


def logits(hidden_BTD: jax.Array, head_VD: jax.Array, ids: jax.Array, counts: jax.Array) -> jax.Array:
    """Float32 scores [B, T, N] of the drawn items, MINUS for what does not count; `ids` [B, 1 or T, N]."""
    table = head_VD.astype(hidden_BTD.dtype)
    if ids.shape[1] == 1:
        found = jnp.einsum("btd,bnd->btn", hidden_BTD, table[ids[:, 0]], preferred_element_type=jnp.float32)
    else:
        found = jnp.einsum("btd,btnd->btn", hidden_BTD, table[ids], preferred_element_type=jnp.float32)
    return jnp.where(counts, found, MINUS)
