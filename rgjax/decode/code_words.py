"""Words of the control codes that are asked for, made likelier than the model has them: weighted decoding as in Hafez (Ghazvininejad et al.
2017) and See et al. (2019, arXiv:1902.08654), by word lists.

A value's words gain until some of them stand in the text, each until it does, so that none is repeated; words of the code's other values lose
all along.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data import words
from rgjax.data.derived import WordCodes
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class CodeWords:
    """The K values that have words, as (code, value); `is_token_VK` bool says which tokens are a word of each; `pull` is in nats, and ends at
    so many `mentions`."""

    values: tuple[tuple[str, str], ...]
    is_token_VK: np.ndarray
    pull: float
    mentions: int = 1

    @classmethod
    def of(cls, codes: WordCodes, pull: float, mentions: int, tokenizer: Tokenizer, size: int) -> CodeWords:
        """For logits over `size` ids. Only words that are one token can be pulled: what begins a longer one may begin any other.

        Raises UserError for a value of which that leaves no word, and for a word of two values of a code.
        """
        values = tuple((name, value) for name, lists in codes.lists.items() for value in lists)
        is_token_VK = np.zeros((size, len(values)), bool)
        for k, (name, value) in enumerate(values):
            for word in codes.lists[name][value]:
                for ids in spellings(word, tokenizer):
                    if len(ids) == 1:
                        is_token_VK[ids[0], k] = True
                both = next((v for v in codes.lists[name] if v != value and word in codes.lists[name][v]), None)
                if both:
                    raise UserError(f"--code_words has '{word}' for {name}={value} and for {name}={both}; leave it to one of them.")
            if not is_token_VK[:, k].any():
                raise UserError(f"--code_words has no word of {name}={value} that is a single token of this vocabulary; add usual ones.")
        return cls(values, is_token_VK, pull, mentions)

    def asked(self, controls: Sequence[dict[str, str]]) -> np.ndarray:
        """int32 [R, K]: 1 for the value that a row asks for, -1 for the others of that code, 0 for those of codes that it does not ask for."""
        one = lambda control: [0 if name not in control else 1 if control[name] == value else -1 for name, value in self.values]
        return np.array([one(control) for control in controls], np.int32).reshape(-1, len(self.values))

    def apply(self, logits_RV: jax.Array, tokens_RN: jax.Array, asked_RK: jax.Array) -> jax.Array:
        """Logits pulled; `tokens_RN` are the tokens so far, -1 beyond."""
        is_token_VK, real_RN = jnp.asarray(self.is_token_VK), tokens_RN >= 0
        mentions_RK = jnp.sum(is_token_VK[jnp.maximum(tokens_RN, 0)] & real_RN[..., None], axis=1)
        wanted_RK = (asked_RK > 0) & (mentions_RK < self.mentions)
        pull = lambda chosen_RK: self.pull * chosen_RK.astype(logits_RV.dtype) @ is_token_VK.T.astype(logits_RV.dtype)
        rows, written_RV = jnp.arange(len(tokens_RN))[:, None], jnp.zeros(logits_RV.shape, bool)
        written_RV = written_RV.at[rows, jnp.maximum(tokens_RN, 0)].max(real_RN)
        return logits_RV + jnp.where(written_RV, 0.0, pull(wanted_RK)) - pull(asked_RK < 0)


def spellings(word: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of a word as it stands in a text: as it is, and capitalized where that differs; one of letters after a space."""
    before = " " if words.edges(word)[0] else ""
    return [tokenizer.encode(text) for text in dict.fromkeys((before + word, before + word.capitalize()))]
