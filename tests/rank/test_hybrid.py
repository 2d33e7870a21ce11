"""The mixture's weights against scipy, and what they do."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import ring
from scipy import optimize, special

from rgjax.data.interactions import last_out
from rgjax.errors import UserError
from rgjax.rank import evaluate, hybrid, markov, popularity
from rgjax.rank.recommender import HistoryRecommender
from rgjax.tasks.shop import mixture

DATA = ring.following(150)
TRAIN, VAL = last_out(DATA, 2)
SEEN, TEST = last_out(DATA, 1)


def test_weights_are_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(0)
    features, offsets = rng.normal(size=(40, 7, 3)).astype(np.float32), rng.normal(size=(40, 7)).astype(np.float32)

    def loss(w):
        logits = features @ w + offsets
        return np.mean(special.logsumexp(logits, axis=1) - logits[:, 0]) + hybrid.PENALTY * np.sum(w**2)

    expected = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(hybrid.maximum_likelihood(features, offsets), expected.x, atol=2e-3)


class _Noise:
    def scores(self, users):
        return jnp.asarray(np.stack([np.random.default_rng(int(u)).normal(size=ring.ITEMS) for u in users]), jnp.float32)


def test_what_predicts_gets_the_weight_and_noise_none():
    parts = {"markov": hybrid.Known(markov.fit(TRAIN), TRAIN), "popularity": popularity.fit(TRAIN), "noise": _Noise()}
    mixed = hybrid.fit(parts, TRAIN, VAL)
    assert mixed.weights["markov"] > 0.8 and abs(mixed.weights["noise"]) < 0.3 * mixed.weights["markov"]
    known = {"markov": hybrid.Known(parts["markov"].part, SEEN), "popularity": parts["popularity"], "noise": _Noise()}
    better = evaluate.held_out(hybrid.Hybrid(known, mixed.weights), SEEN, TEST, 3).ranks
    worse = evaluate.held_out(hybrid.Hybrid(known, {"markov": 0.0, "popularity": 1.0, "noise": 1.0}), SEEN, TEST, 3).ranks
    assert np.mean(better <= 3) > np.mean(worse <= 3) + 0.2


def test_comparable_scores_keep_the_order_and_forget_the_scale():
    scores = np.random.default_rng(0).gamma(0.3, size=(4, 30))
    scores[3] = 2.0
    found = np.asarray(hybrid.comparable(scores))
    assert (np.argsort(found[:3], axis=1) == np.argsort(scores[:3], axis=1)).all() and (found[3] == 0).all()
    np.testing.assert_allclose(found, hybrid.comparable(100 * scores - 7), atol=1e-4)


def test_without_validation_events_it_is_refused():
    with pytest.raises(UserError, match="validation events"):
        hybrid.fit({"popularity": popularity.fit(TRAIN)}, TRAIN, np.full(len(DATA.users), -1))


@pytest.mark.parametrize("name", [name for name in mixture.MODELS if name != "two_tower"])  # which takes a minute, and is asked in its own test
def test_who_knows_only_users_it_was_fitted_on(name):
    data = ring.following(20)
    data = dataclasses.replace(data, triples=np.array([[0, 0, len(data.items)], [1, 0, len(data.items)]], np.int32), entities=["x"], relations=["is"])
    assert isinstance(mixture.fit(name, data), HistoryRecommender) == (name not in mixture.OWN_USERS)
