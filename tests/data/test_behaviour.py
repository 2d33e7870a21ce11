"""Windows of events and the batches made of them."""

import numpy as np
import pytest
import ring

from rgjax.config import BehaviourConfig, InputConfig
from rgjax.data import behaviour, pools
from rgjax.errors import UserError

DATA = ring.following()


def _stream(**flags):
    found = behaviour.events(DATA, ["rating", "gap", "price"])
    return behaviour.train_batches(found, BehaviourConfig(window=8), InputConfig(batch_size=4, **flags), seed=1)


@pytest.mark.parametrize("length", [3, 8, 50])
def test_windows_cover_every_event_and_its_next(length):
    found, rng, covered = behaviour.events(DATA, []), np.random.default_rng(0), set()
    for _ in range(30):  # the windows before the last one end where a draw says
        for user, after in behaviour.windows(DATA, length):
            made = behaviour.window(found, int(user), int(after), length, rng)
            history = DATA.history(user).tolist()
            assert 1 <= len(made["tokens"]) <= length
            starts = [s for s in range(len(history)) if history[s : s + len(made["tokens"])] == made["tokens"].tolist()]
            fits = [s for s in starts if history[s + 1 : s + 1 + len(made["tokens"])] == made["targets"].tolist()]
            assert fits
            covered |= {(int(user), s + k) for s in fits[:1] for k in range(len(made["tokens"]))}
            if not after:
                assert made["targets"][-1] == history[-1]
    assert len(covered) >= 0.98 * (len(DATA) - len(DATA.users))


@pytest.mark.parametrize("packing", [True, False])
def test_batches_hold_whole_windows(packing):
    stream = _stream(packing=packing, row_length=24 if packing else 0)
    for _ in range(5):
        batch = next(stream)
        for row in range(4):
            for segment in range(1, batch["segment_ids"][row].max() + 1):
                here = batch["segment_ids"][row] == segment
                tokens, targets, users = (batch[name][row][here] for name in ("tokens", "targets", "users"))
                assert len(set(users)) == 1 and (tokens[1:] == targets[:-1]).all() and (batch["weights"][row][here] == 1).all()
                assert batch["positions"][row][here].tolist() == list(range(here.sum()))
                own = DATA.item[DATA.user == users[0]].tolist()
                assert any(own[s : s + len(tokens) + 1] == [*tokens, targets[-1]] for s in range(len(own)))
        assert (batch["weights"][batch["segment_ids"] == 0] == 0).all()
    stream.close()


def test_the_stream_goes_on_where_it_stood():
    stream, other = _stream(row_length=24), _stream(row_length=24)
    for _ in range(3):
        next(stream)
    other.set_state(stream.get_state())
    for _ in range(3):
        one, two = next(stream), next(other)
        assert all((one[name] == two[name]).all() for name in one)
    stream.close(), other.close()


def test_features_are_buckets():
    found = behaviour.events(DATA, ["rating", "gap", "price"]).features
    first = DATA.offsets[:-1]
    assert (found["gap"][first] == 0).all()
    second = np.setdiff1d(first + 1, first)
    assert (found["gap"][second] == 1 + int(np.log2(61))).all()  # 60 seconds
    assert (found["rating"] == 1 + 2 * DATA.rating).all() and found["price"].max() < behaviour.PRICE_BUCKETS
    assert (found["price"] == 1 + np.floor(np.log2(1 + 100 * DATA.price))).all()


def test_histories_end_at_the_last_event():
    batch = behaviour.histories(behaviour.events(DATA, []), np.array([2, 0]), 4)
    assert batch["tokens"][0, : batch["segment_ids"][0].sum()].tolist() == DATA.history(2)[-4:].tolist()


def test_bad_features_and_batches_are_named():
    with pytest.raises(UserError, match="'colour'"):
        behaviour.feature_names(BehaviourConfig(event_features="rating,colour"))
    with pytest.raises(UserError, match="item_table"):
        behaviour.feature_names(BehaviourConfig(event_features="vector"))
    with pytest.raises(UserError, match="batch_size=5"):
        behaviour.train_batches(behaviour.events(DATA, []), BehaviourConfig(), InputConfig(batch_size=5, streams=2), seed=0)


def test_collaborative_pool_by_brute_force():
    pool, taken = pools.collaborative(DATA, neighbours=5, size=6), DATA.matrix.toarray()
    unit = taken / np.linalg.norm(taken, axis=1, keepdims=True)
    for user in range(0, len(DATA.users), 7):
        alike = unit @ unit[user]
        alike[user] = 0.0
        weight = np.where(alike >= np.sort(alike)[-5], alike, 0.0) @ taken * (taken[user] == 0)
        chosen = pool[user][pool[user] >= 0]
        assert not taken[user, chosen].any() and len(chosen) == min(6, (weight > 0).sum())
        np.testing.assert_allclose(weight[chosen], np.sort(weight)[::-1][: len(chosen)], rtol=1e-5)


def test_near_items_are_the_neighbours_on_the_ring():
    near = pools.near_items(DATA, neighbours=4, width=10)
    close = [abs((int(n) - item + 12) % ring.ITEMS - 12) for item, row in enumerate(near) for n in row[:2]]
    assert np.mean(close) < 3 and (near != np.arange(ring.ITEMS)[:, None]).all()  # 6.3 if drawn at random
