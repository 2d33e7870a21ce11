"""What a model of bundles reads, against its definition by brute force; nothing of a row gives its bundle away; and its stream."""

import dataclasses
import itertools

import bundle_shop
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import BundleConfig, InputConfig
from rgjax.data import bundles as bundles_lib
from rgjax.data.bundle_sets import NOBODY, BundleSets
from rgjax.data.interactions import Catalogue, build
from rgjax.data.splits import by_hash
from rgjax.errors import UserError

ITEMS, USERS = 12, 5
_NAMES = [f"bundle{n}" for n in range(60)]
_HELD = [name for name in _NAMES if by_hash(name, 0.1, 0.1) != "train"][:4]
IDS = [name for name in _NAMES if name not in _HELD][:6] + _HELD + [name for name in _NAMES if name not in _HELD][6:10]
CONFIG = BundleConfig(set_length=4, user_length=6, user_bundles=3, beside=8)


def world(seed: int):
    """(sets of items, owners with times, events) of a random shop: bundles repeat as events, shared by several users or without any."""
    rng = np.random.default_rng(seed)
    sets = [set(rng.choice(ITEMS, rng.integers(2, 5), replace=False).tolist()) for _ in range(14)]
    owners = [(int(u), b, int(rng.integers(1, 4))) for b in range(14) for u in rng.choice(USERS, rng.integers(0, 3), replace=False)]
    events = {(u, i, t) for u, b, t in owners for i in sets[b]}
    events |= {(int(rng.integers(USERS + 1)), int(rng.integers(ITEMS)), int(rng.integers(1, 6))) for _ in range(12)}  # the last user is nobody known
    return sets, owners, events | {(0, 0, 9)}


def opened(sets, owners, events, config=CONFIG):
    pairs, times = [(u, b) for u, b, _ in owners], [t for *_, t in owners]
    rows = [(b, i) for b, items in enumerate(sets) for i in sorted(items)]
    bundles = bundles_lib.build(IDS, *np.array(rows).T, ITEMS, (), pairs, times)
    catalogue = Catalogue([f"i{n}" for n in range(ITEMS)], [""] * ITEMS, [{}] * ITEMS)
    data = build([f"u{n}" for n in range(USERS)] + [""], catalogue, *np.array(sorted(events)).T)
    return BundleSets(data, bundles, config, np.zeros((len(sets), 3), np.float32))


def brute_items(sets, owners, events, train, user, bundle):
    """What a user had, by train bundles but one, and by events that are neither of a held-out bundle nor of an item of that one."""
    told = {i for u, b, _ in owners if u == user and b in train and b != bundle for i in sets[b]}
    hidden = {(u, i, t) for u, b, t in owners if b not in train for i in sets[b]}
    shown = {(u, i, t) for u, b, t in owners if b in train for i in sets[b]}
    had = {i for u, i, t in events if u == user and ((u, i, t) in shown or (u, i, t) not in hidden)}
    return told | (had - (sets[bundle] if bundle >= 0 else set()))


def brute_beside(sets, owners, events, train, asked, bundle):
    """The sum over the asked of the cosine between columns of a matrix of other train bundles and users."""
    hidden = {(u, i, t) for u, b, t in owners if b not in train for i in sets[b]}
    shown = {(u, i, t) for u, b, t in owners if b in train for i in sets[b]}
    rows = [sets[b] for b in train if b != bundle]
    for user in range(USERS):
        had = {i for u, i, t in events if u == user and ((u, i, t) in shown or (u, i, t) not in hidden)}
        rows.append(had & brute_items(sets, owners, events, train, user, bundle) if (user, bundle) in {(u, b) for u, b, _ in owners} else had)
    matrix = np.array([[i in row for i in range(ITEMS)] for row in rows], float)
    cosine = matrix.T @ matrix / np.maximum(np.outer(np.sqrt(matrix.sum(0)), np.sqrt(matrix.sum(0))), 1e-9)
    total = cosine[sorted(asked)].sum(0)
    found = {i: total[i] for i in range(ITEMS) if total[i] > 0 and i not in asked}
    return {i: weight / max(found.values()) for i, weight in found.items()}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_items_and_neighbours_are_those_of_the_definition(seed):
    sets, owners, events = world(seed)
    found = opened(sets, owners, events)
    train = found.bundles.of("train").tolist()
    assert len(train) == 10
    for bundle in (NOBODY, *range(len(sets))):
        for user in range(USERS):
            wanted = brute_items(sets, owners, events, train, user, bundle)
            assert found.items_of(user, bundle).tolist() == sorted(wanted)
            assert found.others(user, bundle) == [b for u, b, _ in owners if u == user and b in train and b != bundle]
        asked = np.array(sorted(sets[bundle])[:-1])
        near = found.beside(asked, bundle)
        wanted = brute_beside(sets, owners, events, train, set(asked.tolist()), bundle)
        assert near.keys() == wanted.keys() and all(near[i] == pytest.approx(wanted[i]) for i in wanted)
    assert found.items_of(USERS).tolist() == [] and found.items_of(NOBODY).tolist() == []  # '' is no one's history
    assert found.told.tolist() == [len(found.items_of(found.owner(b), b)) > 0 for b in range(len(sets))]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 13))
def test_a_row_is_the_same_whatever_item_was_left_out(seed, bundle):
    """Two shops that differ in one item of a bundle and in its users' events of it give the same row, in training and held out."""
    sets, owners, events = world(seed)
    users = {u for u, b, _ in owners if b == bundle}
    target, other = min(sets[bundle]), next(i for i in range(ITEMS) if i not in sets[bundle])
    times = {(u, t) for u, b, t in owners if b == bundle}
    # Nothing else tells that its users had one of the two.
    owners = [(u, b, t) for u, b, t in owners if b == bundle or u not in users or not sets[b] & {target, other}]
    events = {(u, i, t) for u, i, t in events if u not in users or i not in (target, other)}
    shops = []
    for item in (target, other):
        changed = [*sets[:bundle], (sets[bundle] - {target}) | {item}, *sets[bundle + 1 :]]
        shops.append(opened(changed, owners, events | {(u, item, t) for u, t in times}))
    context = np.array(sorted(sets[bundle] - {target}))
    for user in (NOBODY, *users):
        one, two = (shop.row(context, user, bundle) for shop in shops)
        assert one.keys() == two.keys() and all(np.allclose(one[name], two[name]) for name in one)
        assert target not in one["own"][one["own_segments"] > 0]


def test_rows_have_one_shape_and_cut_what_is_too_long():
    sets, owners, events = world(3)
    found, shapes = opened(sets, owners, events), set()
    for bundle, user in itertools.product(range(len(sets)), (NOBODY, *range(USERS))):
        row = found.row(found.bundles.members(bundle), user, bundle)
        shapes.add(tuple((name, array.shape, array.dtype) for name, array in row.items()))
        assert row["sets"][0][row["encoder_segment_ids"][0] > 0].tolist() == sorted(sets[bundle])[:4]
        others = found.others(user, bundle)[:3]
        read = [s[g > 0].tolist() for s, g in zip(row["sets"][1:], row["encoder_segment_ids"][1:], strict=True)]
        assert [sorted(sets[b])[:4] for b in others] == read[: len(others)]
        assert not row["encoder_segment_ids"][1 + len(others) :].any()
        assert not set(row["beside"][row["beside_weights"] > 0]) & sets[bundle] and (np.diff(row["beside_weights"]) <= 0).all()
    assert len(shapes) == 1
    small = opened(sets, owners, events, dataclasses.replace(CONFIG, set_length=2))
    bundle = next(b for b, items in enumerate(sets) if len(items) == 4)
    drawn = [small.row(found.bundles.members(bundle), NOBODY, bundle, rng=np.random.default_rng(n))["sets"][0].tolist() for n in range(20)]
    assert all(len({*one} & sets[bundle]) == 2 for one in drawn) and len({tuple(one) for one in drawn}) > 3


def test_training_rows_leave_one_item_out_and_users_and_intents_now_and_then():
    data, bundles = bundle_shop.grouped()
    queries = 1.0 + np.arange(len(bundles) * 2, dtype=np.float32).reshape(-1, 2)
    found = BundleSets(data, bundles, BundleConfig(user_dropout=0.25, intent_share=0.4), queries)
    rows = [(b, found.example(b, np.random.default_rng(n))) for n, b in enumerate(itertools.islice(itertools.cycle(range(len(bundles))), 600))]
    for bundle, row in rows:
        left = set(row["sets"][0][row["encoder_segment_ids"][0] > 0].tolist())
        assert left | {int(row["targets"])} == set(bundles.members(bundle).tolist()) and len(left) == 2 and row["weights"] == 1
        assert row["users"] in (NOBODY, bundle // 2) and (row["query"].any() == 0 or (row["query"] == queries[bundle]).all())
        assert row["users"] != NOBODY or not row["own_segments"].any()
    assert np.mean([row["users"] == NOBODY for _, row in rows]) == pytest.approx(0.25, abs=0.06)
    assert np.mean([row["query"].any() for _, row in rows]) == pytest.approx(0.4, abs=0.06)
    assert len({int(row["targets"]) for b, row in rows if b == 0}) > 1
    shared = dataclasses.replace(bundles, pairs=np.array([[3, 0], [4, 0], [4, 0]], np.int32), time=np.ones(3, np.int64))
    several = BundleSets(data, shared, BundleConfig(user_dropout=0.0), queries)
    assert {int(several.example(0, np.random.default_rng(n))["users"]) for n in range(30)} == {3, 4} and several.owner(0) == 3


def test_the_stream_goes_on_where_it_stood_and_is_shared_among_processes():
    data, bundles = bundle_shop.grouped()
    found = BundleSets(data, bundles, CONFIG, np.zeros((len(bundles), 3), np.float32))
    inputs = InputConfig(batch_size=8, streams=4)
    whole = found.train_batches(inputs, seed=5)
    first = [next(whole) for _ in range(20)]  # 160 rows: beyond the first pass
    assert {array.shape[0] for array in first[0].values()} == {8}
    assert set(np.concatenate([b["bundles"] for b in first]).tolist()) == set(bundles.of("train").tolist())
    state = whole.get_state()
    later = [next(whole) for _ in range(3)]
    again = found.train_batches(inputs, seed=5)
    again.set_state(state)
    equal = lambda one, two: all((one[name] == two[name]).all() for name in one | two)
    assert all(equal(batch, next(again)) for batch in later)
    halves = [found.train_batches(inputs, seed=5, process=p, processes=2) for p in range(2)]
    for batch in first[:3]:
        parts = [next(half) for half in halves]
        assert equal(batch, {name: np.concatenate([part[name] for part in parts]) for name in batch})
    assert not equal(first[0], next(found.train_batches(inputs, seed=6)))
    for stream in (whole, again, *halves):
        stream.close()
    with pytest.raises(UserError, match="train bundles, and --batch_size=512 needs more"):
        found.train_batches(InputConfig(batch_size=512, streams=256), seed=0)
