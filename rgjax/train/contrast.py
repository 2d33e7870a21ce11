"""Control codes by contrast: a text is to be likelier under its own code than under another one.

    - log p(text | code) / (p(text | code) + p(text | other))

the discriminative loss of GeDi (Krause et al. 2020, arXiv:2009.06367) of two values, whose log probabilities are sums over the text as a
posterior's are. A code's share of a long text's likelihood is small, and likelihood alone teaches a small model hardly any of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.nn.positions import at
from rgjax.train.examples import of_example
from rgjax.train.loss import token_log_probs

DRAW = 1 << 20  # folded into the dropout key, apart from what it is split into


class Swaps(NamedTuple):
    """The tokens of G codes with at least two values, and how much the contrast weighs."""

    weight: float
    code_V: np.ndarray  # int32: the code that a token is a value of, -1 for others
    place_V: np.ndarray  # int32: the value's number in its code
    values_GK: np.ndarray  # int32: tokens of a code's values, padded
    count_G: np.ndarray  # int32: how many there are

    @classmethod
    def of(cls, codes: Mapping[str, Sequence[int]], vocab_size: int, weight: float) -> Swaps:
        """From the tokens of each code's values."""
        codes = [list(ids) for ids in codes.values() if len(ids) > 1]
        code_V, place_V = np.full(vocab_size, -1, np.int32), np.zeros(vocab_size, np.int32)
        values_GK = np.zeros((len(codes), max(map(len, codes), default=1)), np.int32)
        for g, ids in enumerate(codes):
            code_V[ids], place_V[ids], values_GK[g, : len(ids)] = g, np.arange(len(ids)), ids
        return cls(weight, code_V, place_V, values_GK, np.array([len(ids) for ids in codes], np.int32))


def swapped(tokens_BT: jax.Array, segments_BT: jax.Array, key: jax.Array, swaps: Swaps) -> jax.Array:
    """The tokens with another value, drawn at random, for one code of each example, drawn as well; int32 [B, T]. Examples without codes stay."""
    keys, code_BT = jax.random.split(key), jnp.asarray(swaps.code_V)[tokens_BT]
    lots_BT = jnp.where((code_BT >= 0) & (segments_BT > 0), jax.random.uniform(keys[0], tokens_BT.shape, minval=0.5), 0.0)
    chosen_BT = (lots_BT > 0) & (lots_BT == of_example(jax.ops.segment_max, lots_BT, segments_BT))
    count_BT = jnp.asarray(swaps.count_G)[code_BT]
    further = 1 + jnp.floor(jax.random.uniform(keys[1], tokens_BT.shape) * (count_BT - 1)).astype(jnp.int32)
    place_BT = (jnp.asarray(swaps.place_V)[tokens_BT] + jnp.minimum(further, count_BT - 1)) % count_BT
    return jnp.where(chosen_BT, jnp.asarray(swaps.values_GK)[code_BT, place_BT], tokens_BT)


def contrast_sums(model, hidden_BND: jax.Array, batch: dict[str, jax.Array], key: jax.Array, swaps: Swaps) -> tuple[jax.Array, jax.Array]:
    """(loss, how many are the right way round), each a float32 sum over the weighted tokens of examples, which all count as their example does;
    those of an example without codes count 0.

    `hidden_BND` are the model's states of the batch (of the positions `asked` in it, if there are some) with dropout `key`, which the other pass
    shares, so that the codes alone make the difference.
    """
    side = "encoder_" if "encoder_tokens" in batch else ""
    tokens_BT, segments_BT = batch[f"{side}tokens"], batch[f"{side}segment_ids"]
    others_BT = swapped(tokens_BT, segments_BT, jax.random.fold_in(key, DRAW), swaps)
    head, shrink = model.head()
    score = lambda hidden: token_log_probs(hidden, head, shrink, batch["targets"], batch["weights"])
    gain_BN = score(hidden_BND) - score(model(batch | {f"{side}tokens": others_BT}, key))
    places_BN = at(batch["segment_ids"], batch["asked"]) if "asked" in batch else batch["segment_ids"]
    changed_BN = of_example(jax.ops.segment_max, (tokens_BT != others_BT).astype(jnp.int32), segments_BT, places_BN)
    counted_BN = jnp.where(changed_BN > 0, batch["weights"], 0).astype(jnp.float32)
    gain_BN = of_example(jax.ops.segment_sum, gain_BN, places_BN)
    return jnp.sum(jax.nn.softplus(-gain_BN) * counted_BN), jnp.sum((gain_BN > 0) * counted_BN)
