"""Writers with tiny random models over the shop's vocabulary."""

import dataclasses

import numpy as np
import pytest
import tiny

from rgjax.config import DecodeConfig
from rgjax.data.template import Rendered
from rgjax.decode.writer import Writer


@pytest.fixture(scope="session")
def writer(tokenizer):
    """writer(family, allowed=None, layers=1, ends=(), **decoding) -> Writer; `allowed` narrows what may be written to a few token ids."""

    made = {}  # compiling is what takes time

    def make(family="llama", allowed=None, layers=1, ends=(), **decoding) -> Writer:
        key = (family, tuple(allowed or ()), layers, ends, *sorted(decoding.items()))
        if key not in made:
            factory = tiny.factory(family, tokenizer.vocab_size, layers=layers)
            config = DecodeConfig(**{"decode_batch": 4, "max_new_tokens": 8} | decoding)
            made[key] = Writer(factory, tiny.params(factory), tokenizer, config, ends)
            if allowed is not None:
                rules = made[key].rules
                others = ~np.isin(np.arange(tokenizer.vocab_size), [*rules.end_ids, *allowed])
                made[key].rules = dataclasses.replace(rules, banned_V=rules.banned_V | others)
        return made[key]

    return make


@pytest.fixture(scope="session")
def prompts(tokenizer):
    """prompts(count) -> that many random prompts of ragged lengths, without slots."""

    def make(count: int, seed: int = 0) -> list[Rendered]:
        rng = np.random.default_rng(seed)
        ids = [rng.integers(3, tokenizer.vocab_size, rng.integers(1, 40)).tolist() for _ in range(count)]
        return [Rendered(prompt, [], {}, False) for prompt in ids]

    return make


@pytest.fixture(scope="session")
def letters(tokenizer) -> list[int]:
    """Ids of ten single letters and words, ASCII only."""
    table = tokenizer.token_bytes()
    return [i for i, t in enumerate(table) if t.strip() and t.isascii() and t.replace(b" ", b"").isalpha()][::23][:10]
