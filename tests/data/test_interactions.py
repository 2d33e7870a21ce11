"""Interactions as columns: order, what is held out, the reader of MovieLens 1M."""

import numpy as np
import pytest
import ring
from hypothesis import given
from hypothesis import strategies as st

from rgjax.config import ShopConfig
from rgjax.data import holdout, shops
from rgjax.data.interactions import Catalogue, before, build, last_out
from rgjax.errors import UserError

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=40)


def _data(rows):
    user, item, time = np.array(rows).T
    return build([str(u) for u in range(5)], Catalogue([str(i) for i in range(6)], [""] * 6, [{}] * 6), user, item, time)


@given(EVENTS)
def test_sorted_by_user_then_time_and_stable(rows):
    data = _data(rows)
    expected = sorted(rows, key=lambda r: (r[0], r[2]))  # Python's sort is stable
    assert [tuple(r) for r in zip(data.user, data.item, data.time, strict=True)] == expected
    for user in range(5):
        assert data.history(user).tolist() == [r[1] for r in expected if r[0] == user]
    taken = data.matrix.toarray()
    assert all(taken[u, i] == ((u, i) in {r[:2] for r in rows}) for u in range(5) for i in range(6))
    assert data.counts.tolist() == [sum(r[1] == i for r in rows) for i in range(6)]


@given(EVENTS, st.integers(1, 2))
def test_last_out_by_hand(rows, back):
    data = _data(rows)
    rest, held = last_out(data, back)
    for user in range(5):
        own = data.history(user).tolist()
        if len(own) > back:
            assert held[user] == own[-back] and rest.history(user).tolist() == own[:-back]
        else:
            assert held[user] == -1 and rest.history(user).tolist() == own[:1]


@given(EVENTS)
def test_no_training_event_is_asked_for(rows):
    data = _data(rows)
    train, (seen, held) = last_out(data, 2)[0], last_out(data, 1)
    for user in np.flatnonzero(held >= 0):
        assert len(train.history(user)) < len(data.history(user)) and len(seen.history(user)) == len(data.history(user)) - 1


@given(EVENTS, st.integers(0, 10))
def test_before_parts_the_events(rows, cut):
    earlier, later = before(_data(rows), cut)
    assert len(earlier) + len(later) == len(rows) and (earlier.time < cut).all() and (later.time >= cut).all()


def test_weeks_hold_out_the_first_event_of_the_period():
    week = holdout.WEEK
    rows = [(0, 0, 0), (0, 1, 5 * week), (0, 2, 9 * week), (0, 3, 9 * week + 5), (1, 4, 9 * week), (2, 5, week), (2, 0, 10 * week - 1)]
    split = holdout.split(_data(rows), ShopConfig(hold_out="weeks", hold_weeks=1))
    assert split.test.items.tolist() == [2, -1, 0, -1, -1]  # user 1 had nothing before
    assert (split.train.time < 8 * week).all() and len(split.train) == 3
    assert len(holdout.split(_data(rows), ShopConfig(hold_out="weeks", hold_weeks=1, train_on_validation=True)).test.seen) == 3


def test_cold_users_and_items_are_not_trained_on_and_always_the_same():
    data = ring.following()
    config = ShopConfig(cold_users=0.2, cold_items=0.2)
    split = holdout.split(data, config)
    assert 0.05 < split.cold_users.mean() < 0.4 and split.cold_items.any()
    assert not split.cold_users[split.train.user].any() and not split.cold_items[split.train.item].any()
    assert (split.cold_users == holdout.split(ring.following(seed=1), config).cold_users).all()
    warm = split.warm(split.test)
    assert (warm[split.cold_users] == -1).all() and not split.cold_items[warm[warm >= 0]].any() and (warm >= 0).any()


def test_ml1m_is_read_with_titles(tmp_path):
    data = ring.following(30)
    found = shops.read("ml1m", str(ring.ml1m_folder(tmp_path / "ml", data)))
    assert (found.item == data.item).all() and (found.user == data.user).all()
    assert found.items.titles[3] == "Film 3 (1990)" and found.items.attributes[2] == {"genre": ["War"]}
    assert found.fingerprint() == shops.read("ml1m", str(tmp_path / "ml")).fingerprint() != data.fingerprint()


@pytest.mark.parametrize("line", ["1 2 3", "a 2", "1 -2", "0 1"])
def test_ml1m_names_the_bad_line(tmp_path, line):
    (tmp_path / "ml-1m.txt").write_text(f"1 1\n{line}\n")
    with pytest.raises(UserError, match="line 2"):
        shops.read("ml1m", str(tmp_path))


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        shops.read("ml1m", str(tmp_path / "no"))
    with pytest.raises(UserError, match="--layout=llmxrec"):
        shops.read("llmxrec", str(tmp_path))
    with pytest.raises(UserError, match="no interaction"):
        (tmp_path / "ml-1m.txt").write_text("\n")
        shops.read("ml1m", str(tmp_path))
