"""Writing with an LSTM, against the model's distribution over all short texts, enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.decode import recurrent
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig

V, T = 3, 4
FACTORY = ModelFactory(LSTMConfig(5, 6, 1.0), V, LSTM)
PARAMS = FACTORY.fresh(jax.random.key(3))
TEXTS = np.array(list(itertools.product(range(V), repeat=T)), np.int32)


def by_hand(params, text):
    """log p of each token in float64, a step at a time."""
    p = {name: np.asarray(value, float) for name, value in params.items()}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    h, c, found = np.zeros(6), np.zeros(6), []
    for fed, token in zip([0, *text[:-1]], text, strict=True):
        i, f, o, g = np.split(p["tokens"][fed] @ p["w_in"] + h @ p["w_hidden"] + p["b_in"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        scores = h @ p["output"] + p["b_vocab"]
        found.append(scores[token] - np.log(np.exp(scores).sum()))
    return np.array(found)


PROBABILITIES = np.exp([by_hand(PARAMS, text).sum() for text in TEXTS])


def frequencies(texts_NT):
    codes = np.asarray(texts_NT) @ V ** np.arange(T - 1, -1, -1)
    return np.bincount(codes, minlength=len(TEXTS)) / len(codes)


def test_log_probabilities_are_the_recurrence_by_hand():
    found = np.asarray(FACTORY.model(PARAMS).log_probs(jnp.asarray(TEXTS)))
    np.testing.assert_allclose(found, [by_hand(PARAMS, text) for text in TEXTS], atol=2e-6)
    assert PROBABILITIES.sum() == pytest.approx(1)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_models_distribution(temperature):
    write = jax.jit(lambda key: recurrent.sample(FACTORY.model(PARAMS), key, 40_000, T, temperature))
    sharp = PARAMS | {name: PARAMS[name] / temperature for name in ("output", "b_vocab")}
    expected = np.exp([by_hand(sharp, text).sum() for text in TEXTS])
    assert np.abs(frequencies(write(jax.random.key(0))) - expected).sum() < 0.07  # 0.03 by chance


def test_relaxed_texts_are_one_hot_and_of_the_same_distribution():
    write = jax.jit(lambda key: recurrent.relaxed(FACTORY.model(PARAMS), key, 40_000, T, 0.7))
    rows = np.asarray(write(jax.random.key(1)))
    np.testing.assert_allclose(np.sort(rows, axis=-1), np.broadcast_to([0, 0, 1], rows.shape), atol=1e-6)
    assert np.abs(frequencies(rows.argmax(-1)) - PROBABILITIES).sum() < 0.07


def test_the_relaxed_gradient_is_that_of_the_softmax_fed_on():
    """Against an unrolled version whose hard tokens are constants: d hard + (soft - its value)."""
    heat, weights = 0.8, jax.random.normal(jax.random.key(9), (2, T, V))

    def ours(params):
        return jnp.sum(weights * recurrent.relaxed(FACTORY.model(params), jax.random.key(4), 2, T, heat))

    values = [np.asarray(recurrent.relaxed(FACTORY.model(PARAMS), jax.random.key(4), 2, T, heat))[:, t] for t in range(T)]

    def theirs(params):
        h, c, x, total = jnp.zeros((2, 6)), jnp.zeros((2, 6)), jnp.broadcast_to(params["tokens"][0], (2, 5)), 0.0
        for t, key in enumerate(jax.random.split(jax.random.key(4), T)):
            i, f, o, g = jnp.split(x @ params["w_in"] + h @ params["w_hidden"] + params["b_in"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            soft = jax.nn.softmax((h @ params["output"] + params["b_vocab"] + jax.random.gumbel(key, (2, V))) / heat, axis=-1)
            token = values[t] + soft - jax.lax.stop_gradient(soft)
            x, total = token @ params["tokens"], total + jnp.sum(weights[:, t] * token)
        return total

    for mine, other in zip(jax.tree.leaves(jax.grad(ours)(PARAMS)), jax.tree.leaves(jax.grad(theirs)(PARAMS)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_completions_keep_their_beginning_and_continue_it_as_the_model_does(stride, monkeypatch):
    monkeypatch.setattr(recurrent, "STRIDE", stride)
    begun, times = TEXTS[[5, 70]], 20_000
    found = np.asarray(jax.jit(lambda key, texts: recurrent.completions(FACTORY.model(PARAMS), key, texts, times))(jax.random.key(2), begun))
    assert found.shape == (T - 1, times, 2, T)
    for t in range(T - 1):
        for b, text in enumerate(begun):
            assert (found[t, :, b, : t + 1] == text[: t + 1]).all()
            same = (TEXTS[:, : t + 1] == text[: t + 1]).all(1)
            expected = np.where(same, PROBABILITIES, 0) / PROBABILITIES[same].sum()
            assert np.abs(frequencies(found[t, :, b]) - expected).sum() < 0.06
