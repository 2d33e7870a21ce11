"""Bundles: their reader, splits, held-out items, and that no interaction gives a held-out item away."""

import numpy as np
import pytest

from rgjax.data import bundles as bundles_lib
from rgjax.data import shops
from rgjax.data.interactions import Catalogue
from rgjax.data.interactions import build as build_interactions
from rgjax.data.shops.bundle_intent import parse_paths
from rgjax.errors import UserError

FILES = {
    "item_titles": 'item ID,titles\n7,"Lamp, red"\n8,"Desk\nlarge"\n9,\n',
    "item_categories": 'item ID,categories\n7,"[[Home,Lamps],[Clothing, Shoes & Jewelry,Lights]]"\n',
    "user_item": "user ID,item ID,timestamp\n0,7,50\n0,8,50\n0,7,50\n1,8,60\n1,9,60\n",
    "bundle_item": "bundle ID,item ID\n0,7\n0,8\n1,8\n1,9\n",
    "bundle_intent": 'bundle ID,intent\n0,"home\n office\n"\n1,\n',
    "user_bundle": "user ID,bundle ID,timestamp\n0,0,50\n1,1,60\n",
}


def folder(tmp_path, **changes):
    for name, text in (FILES | changes).items():
        if text is not None:
            (tmp_path / f"{name}.csv").write_text(text)
    return str(tmp_path)


def test_a_domain_is_read(tmp_path):
    found = shops.load("bundle_intent", folder(tmp_path))
    data, bundles = found.interactions, found.bundles
    assert found.dropped == {"duplicate": 1} and len(data) == 4
    assert data.items.ids == ["7", "8", "9"] and data.items.titles == ["Lamp, red", "Desk large", ""]
    assert data.items.attributes[0] == {"category": ["Lamps", "Lights"], "path": ["Home > Lamps", "Clothing, Shoes & Jewelry > Lights"]}
    assert bundles.intents == ["home office", ""] and bundles.members(1).tolist() == [1, 2]
    assert bundles.pairs.tolist() == [[0, 0], [1, 1]] and bundles.time.tolist() == [50, 60]


def test_paths_keep_commas_of_names():
    assert parse_paths("[[Clothing, Shoes & Jewelry,Men],[A]]") == [["Clothing, Shoes & Jewelry", "Men"], ["A"]]
    assert parse_paths("[[]]") == []


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"bundle_item": "b,i\n0,7\n0,8\n1,8\n"}, "Bundle '1' holds 1 different item"),
        ({"bundle_item": "b,i\n0,7\n0,6\n"}, "bundle_item.csv, row 2: item '6' is not in item_titles.csv"),
        ({"bundle_item": "b,i\n5,7\n"}, "row 1: bundle '5' is not in bundle_intent.csv"),
        ({"user_item": "u,i,t\n0,6,5\n"}, "user_item.csv, row 1: item '6' is not in item_titles.csv"),
        ({"user_item": "u,i,t\n0,7,9999999999999\n"}, "user_item.csv, row 1: its time"),
        ({"user_item": "u,i,t\n0,7,\n"}, "user_item.csv, row 1 has no time"),
        ({"user_item": "u,i,t\n"}, "user_item.csv is empty"),
        ({"user_item": "u,i\n0,7\n"}, "has 2 column(s) where 3 are needed"),
        ({"user_bundle": "u,b,t\n4,0,5\n"}, "user_bundle.csv, row 1: user '4' is not in user_item.csv"),
        ({"item_titles": None}, "item_titles.csv is missing"),
    ],
)
def test_a_mistake_is_named(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        shops.load("bundle_intent", folder(tmp_path, **changes))
    assert said in str(error.value)


def many(count):
    rng = np.random.default_rng(0)
    rows = [(n, i) for n in range(count) for i in rng.choice(30, rng.integers(2, 6), replace=False)]
    return bundles_lib.build([f"b{n}" for n in range(count)], *np.array(rows).T, 30)


def test_splits_are_decided_by_the_id_alone():
    few, all_ = many(100), many(1000)
    assert (few.splits == all_.splits[:100]).all()
    sizes = [len(all_.of(s)) for s in ("train", "val", "test")]
    assert sum(sizes) == 1000 and 740 < sizes[0] < 860 and min(sizes[1:]) > 60


def test_one_item_of_every_test_bundle_is_held_out_always_the_same():
    bundles = many(300)
    cases = bundles_lib.completion_cases(bundles)
    assert [c.bundle for c in cases] == bundles.of("test").tolist()
    for case in cases:
        assert sorted([*case.context, case.target]) == bundles.members(case.bundle).tolist() and case.target not in case.context
    again = bundles_lib.completion_cases(many(300))
    assert [c.target for c in cases] == [c.target for c in again]
    places = [np.searchsorted(bundles.members(c.bundle), c.target) for c in cases]
    assert len(set(places)) > 1


def test_events_that_only_a_held_out_bundle_explains_are_taken_out():
    ids = [f"b{n}" for n in range(60)]
    splits = bundles_lib.build(ids, np.repeat(np.arange(60), 2), np.tile([0, 1], 60), 5).splits
    train, test = ids[int(np.argmax(splits == 0))], ids[int(np.argmax(splits == 2))]
    pairs, times = [(0, 0), (0, 1)], [10, 10]
    bundles = bundles_lib.build([train, test], [0, 0, 1, 1], [0, 1, 1, 2], 5, ["", ""], pairs, times)
    items = Catalogue(list("abcde"), [""] * 5, [{}] * 5)
    data = build_interactions(["u", "v"], items, [0, 0, 0, 0, 0, 1], [0, 1, 2, 2, 4, 2], [10, 10, 10, 11, 10, 10])
    kept = bundles_lib.without_bundles(data, bundles)
    left = set(zip(kept.user.tolist(), kept.item.tolist(), kept.time.tolist(), strict=True))
    # Item 1 is in the train bundle too; item 2 went at time 11 and to another user; item 4 is in no bundle.
    assert left == {(0, 0, 10), (0, 1, 10), (0, 2, 11), (0, 4, 10), (1, 2, 10)}


def test_bundles_of_a_session_with_a_train_bundle_are_told():
    ids = [f"b{n}" for n in range(60)]
    splits = bundles_lib.build(ids, np.repeat(np.arange(60), 2), np.tile([0, 1], 60), 5).splits
    (train, lone), test = np.flatnonzero(splits == 0)[:2], np.flatnonzero(splits == 2)[:3]
    chosen = [ids[n] for n in (train, lone, *test)]
    # (user, time): the first test bundle shares both with a train bundle, the second only the user, the third only the time.
    pairs, time = [(0, 0), (5, 1), (0, 2), (0, 3), (1, 4)], [10, 10, 10, 11, 10]
    bundles = bundles_lib.build(chosen, np.repeat(np.arange(5), 2), np.tile([0, 1], 5), 5, [""] * 5, pairs, time)
    assert bundles_lib.beside_train(bundles).tolist() == [False, False, True, False, False]


def test_a_bundle_of_one_is_refused():
    with pytest.raises(UserError, match="Bundle 'b' holds 1 different item"):
        bundles_lib.build(["a", "b"], [0, 0, 1, 1], [0, 1, 2, 2], 3)
