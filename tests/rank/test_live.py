"""Vectors of shoppers after each event against the same model reading the whole history, whatever it reads and wherever the window ends."""

import dataclasses

import jax
import numpy as np
import pytest
import ring

from rgjax.config import BehaviourConfig, InputConfig, ModelConfig, ShopConfig
from rgjax.data import behaviour
from rgjax.errors import UserError
from rgjax.rank.live import LiveUsers
from rgjax.tasks.shop.behaviour import BehaviourTask

DATA = ring.following(9, length=24)
DATA = dataclasses.replace(DATA, event=(DATA.item % 2).astype(np.int8), events=("view", "buy"))
FEATURES = "event,rating,gap,price"
PLACE = np.arange(len(DATA)) - DATA.offsets[DATA.user]
WINDOW = 10


def _recommender(seen, features=FEATURES, window=WINDOW, **model):
    options = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.0, "init_std": 0.5} | model
    config = BehaviourConfig(window=window, event_features=features)
    task = BehaviourTask(DATA, ShopConfig(), config, InputConfig(batch_size=4), ModelConfig(**options))
    return task.recommender(task.factory.fresh(jax.random.key(0)), seen)


def _knowing(first, seen):
    """The same model with other histories, not compiled again."""
    other = dataclasses.replace(first, found=behaviour.events(seen, list(first.found.features)))
    other.__dict__["_vectors"] = first._vectors
    return other


def _followed(model, events=1):
    """Largest difference from the whole histories after each of the events that follow the first ones of each user."""
    start = 2 + np.arange(len(DATA.users)) % 5  # of different lengths; users 0 and 5 begin with two
    first = _recommender(DATA.where(PLACE < start[DATA.user]), **model)
    live, worst = LiveUsers(first, np.arange(len(DATA.users)), rows=4), 0.0
    for end in range(0, int(PLACE.max()) + 1, events):
        before, after = start[DATA.user] + end, start[DATA.user] + end + events
        new = DATA.where((PLACE >= before) & (PLACE < after))
        places = live.append(new)
        whole = _knowing(first, DATA.where(PLACE < after))
        assert places.tolist() == np.unique(new.user).tolist()
        worst = max(worst, np.abs(live.vectors - whole.user_vectors(np.arange(len(DATA.users)))).max())
    return worst


MODELS = [{}, {"block": "pointwise"}, {"positions": "learned", "kv_heads": 1}, {"block": "pointwise", "positions": "relative"}]


@pytest.mark.parametrize("model", MODELS)
def test_each_event_gives_what_the_whole_history_gives(model):
    """Histories of up to 23 events with a window of 10: it fills up, and moves."""
    assert _followed(model) < 2e-5


def test_several_events_at_once():
    assert _followed({}, events=3) < 2e-5


def test_more_events_than_are_read_one_by_one(monkeypatch):
    monkeypatch.setattr("rgjax.rank.live.MANY", 2)
    assert _followed({"window": 24}, events=3) < 2e-5


def test_fewer_may_be_kept_when_the_window_is_full():
    live = LiveUsers(_recommender(DATA.where(PLACE < 9)), np.array([4, 2]), kept=6)
    mine = dataclasses.replace(DATA, user=np.where(DATA.user == 4, 0, 1).astype(np.int32), users=["u4", "u2"])
    chosen = (DATA.user == 4) & (PLACE >= 9)
    for place, last in ((9, 9), (10, 5), (11, 6)):  # ten fit; the eleventh leaves the last six
        live.append(mine.where(chosen & (PLACE == place)))
        seen = DATA.where((DATA.user == 4) & (PLACE <= place))
        model = _recommender(seen, window=last + 1)  # the features are of whole histories: the first event read has its gap
        np.testing.assert_allclose(live.vectors[0], model.user_vectors(np.array([4]))[0], atol=2e-5)
    with pytest.raises(UserError, match="kept=11 has to be"):
        LiveUsers(_recommender(DATA), np.arange(2), kept=11)


def test_what_cannot_be_appended():
    live = LiveUsers(_recommender(DATA), np.arange(9))
    with pytest.raises(UserError, match="shopper 0 is earlier"):
        live.append(DATA.where(PLACE == 0))
    with pytest.raises(UserError, match="9 shoppers and 24 items"):
        live.append(dataclasses.replace(DATA, user=DATA.user + 1, users=[*DATA.users, "more"]))
