"""How varied texts are, against counting by hand; and that a generator that lost its variety is stopped."""

import itertools
import math
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rgjax.train.collapse import Collapse
from rgjax.train.variety import variety


@pytest.mark.parametrize("seed", range(4))
def test_variety_is_counted(seed):
    rng = np.random.default_rng(seed)
    texts, lengths = rng.integers(0, 6, (6, 9)), rng.integers(1, 10, 6) if seed else np.full(6, 9)
    found = variety(jnp.asarray(texts), jnp.asarray(np.arange(9) < lengths[:, None], jnp.int32))
    rows = [text[:n].tolist() for text, n in zip(texts, lengths, strict=True)]
    pairs = [list(itertools.pairwise(row)) for row in rows]
    every = [pair for row in pairs for pair in row]
    shared = [pair in itertools.chain(*pairs[:i], *pairs[i + 1 :]) for i, row in enumerate(pairs) for pair in row]
    assert found["distinct_2"] == pytest.approx(len(set(every)) / len(every))
    assert found["self_overlap"] == pytest.approx(np.mean(shared))
    assert found["entropy"] == pytest.approx(stats.entropy(list(Counter(itertools.chain(*rows)).values())), rel=1e-5)


def test_texts_of_one_token_have_no_pairs():
    found = variety(jnp.full((3, 4), 2), jnp.zeros((3, 4)).at[:, 0].set(1))
    assert {name: float(value) for name, value in found.items()} == {"distinct_2": 0, "self_overlap": 0, "entropy": 0}


def test_a_collapse_is_noticed_when_it_lasts():
    kept, values = {}, [math.nan, 0.8, 0.39, 0.3, 0.41, 0.2, 0.2]
    assert not any(Collapse(kept, 0.5, 3).note(i, {"distinct_2": value}) for i, value in enumerate(values))
    assert Collapse(kept).looms
    for _ in range(2):  # whoever goes on remembers
        told = Collapse(kept, 0.5, 3).note(9, {"distinct_2": 0.2})
        assert "by round 9" in told and "20.0% of its token pairs are distinct, 80.0% were at first" in told
    assert not Collapse(kept, 0.5, 3).note(10, {"distinct_2": 0.5}) and not Collapse(kept).looms


@pytest.mark.parametrize(("name", "first", "sound", "low"), [
    ("entropy", 4.0, 2.1, 1.9), ("self_overlap", 0.6, 0.79, 0.81), ("written_tokens", 20.0, 11, 9), ("written_tokens", 20.0, 39, 41),
])  # fmt: skip
def test_each_figure_ends_a_run(name, first, sound, low):
    kept = {}
    notes = [Collapse(kept, 0.5, 2).note(i, {name: value, "loss": 3.0}) for i, value in enumerate([first, sound, low, sound, low, low])]
    assert [bool(note) for note in notes] == [False] * 5 + [True]
