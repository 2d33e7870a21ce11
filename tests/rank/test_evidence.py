"""Attributions against what they are defined by, and faithfulness by hand."""

import jax
import numpy as np
import pytest
import ring
from flax import nnx

from rgjax.config import BehaviourConfig, InputConfig, ModelConfig, ShopConfig
from rgjax.rank.evidence import METHODS, Explainer
from rgjax.tasks.shop.behaviour import BehaviourTask

DATA = ring.following(12)


@pytest.fixture(scope="module")
def explainer():
    model = ModelConfig(layers=2, width=16, heads=2, dropout=0.0, init_std=0.5)
    task = BehaviourTask(DATA, ShopConfig(), BehaviourConfig(window=16), InputConfig(batch_size=4), model)
    params = nnx.to_pure_dict(nnx.state(task.factory.make(model, task.factory.vocab_size, jax.random.key(1)), nnx.Param))
    return Explainer(task.recommender(params, DATA))


def _score(explainer, history, item):
    """The logit of `item` after these items alone, from the model itself."""
    rec = explainer.recommender
    count = len(history)
    batch = {"tokens": history, "users": np.zeros(count), "segment_ids": np.ones(count), "positions": np.arange(count)}
    batch = {name: np.asarray(values, np.int32)[None] for name, values in batch.items()}
    model = rec.factory.model(rec.params)
    return float(np.asarray(model(batch))[0, -1] @ np.asarray(model.head()[0])[item])


def test_leave_one_out_is_the_drop_without_the_event(explainer):
    history, items = DATA.history(3), np.array([0, 5])
    given = explainer.attribute(3, items, "leave_one_out")
    assert given.shape == (2, len(history))
    for m, item in enumerate(items):
        whole = _score(explainer, history, item)
        for n in range(len(history)):
            assert given[m, n] == pytest.approx(whole - _score(explainer, np.delete(history, n), item), abs=1e-4)


def test_gradient_times_input_is_the_slope_along_the_event(explainer):
    rec, items = explainer.recommender, np.array([2, 7, 7])
    given = explainer.attribute(4, items, "gradient")
    model, count = rec.factory.model(rec.params), len(DATA.history(4))
    batch = explainer._batch([explainer.events(4)])
    x = np.asarray(model.embedding(batch))
    head = np.asarray(model.head()[0])
    for m, item in enumerate(items[:2]):
        for n in (0, count - 1):
            scores = []
            for scale in (0.999, 1.001):
                moved = x.copy()
                moved[0, n] *= scale
                scores.append(float(np.asarray(model.read(moved, batch))[0, count - 1] @ head[item]))
            assert given[m, n] == pytest.approx((scores[1] - scores[0]) / 0.002, abs=2e-2)
    np.testing.assert_allclose(given[1], given[2], rtol=1e-5)


def test_attention_is_shared_by_items(explainer):
    given = explainer.attribute(5, np.array([1, 2]), "attention")
    np.testing.assert_array_equal(given[0], given[1])
    assert given[0].sum() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_faithfulness_by_hand(explainer, method):
    user, item = 6, 3
    found = explainer.faithfulness(user, item, method, 0.3, np.random.default_rng(0), draws=3)
    history, given = DATA.history(user), explainer.attribute(user, np.array([item]), method)[0]
    top = max(1, round(0.3 * len(history)))
    first = np.argsort(-given, kind="stable")[:top]
    whole = _score(explainer, history, item)
    assert found["comprehensiveness"] == pytest.approx(whole - _score(explainer, np.delete(history, first), item), abs=1e-4)
    assert found["sufficiency"] == pytest.approx(whole - _score(explainer, history[np.sort(first)], item), abs=1e-4)
    rng, removed = np.random.default_rng(0), []
    for _ in range(3):
        removed.append(whole - _score(explainer, np.delete(history, rng.permutation(len(history))[:top]), item))
    assert found["comprehensiveness_random"] == pytest.approx(np.mean(removed), abs=1e-4)


def test_leave_one_out_of_one_event_removes_what_hurts_most(explainer):
    """For one removed event nothing is more comprehensive than leave-one-out: it is its definition."""
    for user in range(6):
        share = 1 / len(DATA.history(user))
        drops = {m: explainer.faithfulness(user, 1, m, share, np.random.default_rng(0))["comprehensiveness"] for m in METHODS}
        assert drops["leave_one_out"] >= max(drops.values()) - 1e-5
