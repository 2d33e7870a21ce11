"""Discriminators: what lies beyond a text is not seen, ids and one-hot rows are the same, and the CNN by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.config import DiscriminatorConfig
from rgjax.errors import UserError
from rgjax.models import discriminator
from rgjax.models.build import ModelFactory

V, SMALL = 11, {"d_width": 8, "d_filters": 3, "d_windows": "1,2,4", "d_heads": 2, "d_layers": 2, "d_dropout": 0.5}
KINDS = [{}, {"d_norm": True}, {"d_spectral": True}, {"d_highway": False}, {"discriminator": "transformer"}]


def factory(**changes):
    return ModelFactory(DiscriminatorConfig(**(SMALL | changes)), V, discriminator.build)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_only_the_text_counts_and_one_hot_rows_are_ids(changes):
    made = factory(**changes)
    params = made.fresh(jax.random.key(0))
    params["b_in"] = params["b_in"] + 0.1 if "b_in" in params else None
    params = {name: value for name, value in params.items() if value is not None}
    rng = np.random.default_rng(0)
    text, lengths = rng.integers(1, V, (4, 7)), np.array([7, 5, 4, 2])
    mask = (np.arange(7) < lengths[:, None]).astype(np.int32)
    read = (jnp.asarray(rng.integers(1, V, (4, 5))), jnp.asarray(np.arange(5) >= np.array([0, 1, 2, 3])[:, None], jnp.int32))
    judge = jax.jit(lambda t, m, r=read: made.model(params)(t, m, r))
    first = judge(jnp.asarray(text), mask)
    assert first.shape == (4,) and first.dtype == jnp.float32
    np.testing.assert_allclose(judge(jnp.where(mask, text, rng.integers(1, V, (4, 7))), mask), first, atol=1e-5)
    np.testing.assert_allclose(judge(jax.nn.one_hot(text, V), mask), first, atol=1e-5)
    other = (jnp.where(read[1] > 0, read[0], 1 + read[0] % 3), read[1])
    np.testing.assert_allclose(judge(jnp.asarray(text), mask, other), first, atol=1e-5)
    for b, n in ((1, 5), (3, 2)):  # each by itself, without any padding
        own = tuple(jnp.asarray(x[b : b + 1, b:]) for x in read)
        np.testing.assert_allclose(judge(jnp.asarray(text[b : b + 1, :n]), np.ones((1, n), np.int32), own)[0], first[b], atol=1e-5)
    assert np.ptp(first) > 1e-3
    assert np.abs(judge(jnp.asarray(text), mask, (read[0] % (V - 1) + 1, read[1])) - first).max() > 1e-4
    unconditional = made.model(params)(jnp.asarray(text), mask)
    assert np.abs(unconditional - first).max() > 1e-4


def test_the_cnn_is_each_filters_strongest_window():
    made = factory(d_highway=False)
    params = made.fresh(jax.random.key(1))
    params["b_in"] = params["b_in"] + np.random.default_rng(2).normal(size=params["b_in"].shape).astype(np.float32)
    text = np.array([3, 1, 4, 1, 5])
    x = np.asarray(params["tokens"])[text]
    features = []
    for i, n in enumerate((1, 2, 4)):
        w = np.asarray(params["filters"][f"of_{n}"])
        places = [np.maximum(x[at : at + n].reshape(-1) @ w + np.asarray(params["b_in"][i]), 0) for at in range(5 - n + 1)]
        features.append(np.max(places, axis=0))
    expected = np.concatenate(features) @ np.asarray(params["w_verdict"])[:, 0]
    np.testing.assert_allclose(made.model(params)(jnp.asarray(text[None]), jnp.ones((1, 5), jnp.int32))[0], expected, rtol=1e-5)


def test_dropout_needs_a_key():
    made = factory()
    model, text = made.model(made.fresh(jax.random.key(0))), jnp.arange(5)[None]
    judge = lambda key=None: model(text, jnp.ones((1, 5), jnp.int32), key=key)
    assert judge() == judge()
    assert judge(jax.random.key(1)) != judge(jax.random.key(2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"d_windows": "2,2"}, "d_windows"), ({"d_windows": "2,x"}, "d_windows"), ({"d_windows": "0"}, "d_windows"),
     ({"discriminator": "transformer", "d_spectral": True}, "d_spectral"), ({"discriminator": "transformer", "d_heads": 3}, "d_heads")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        factory(**changes)
