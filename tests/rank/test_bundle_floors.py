"""Floors of bundles: TF-IDF, ranks and hits by hand, and that each floor finds what it is built to find."""

import dataclasses
import math

import numpy as np
import pytest

from rgjax.data import bundles as bundles_lib
from rgjax.data import similar_bundles
from rgjax.data.interactions import Catalogue, build
from rgjax.rank import bundle_floors as floors


def test_tfidf_by_hand():
    found = floors.vectors(["Red lamp, red", "lamp", ""]).toarray()
    rare, common = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    first = np.array([(1 + math.log(2)) * rare, common])
    np.testing.assert_allclose(found, [first / np.linalg.norm(first), [0, 1], [0, 0]], rtol=1e-6)


def test_chinese_titles_are_alike_by_their_characters_and_pairs():
    found = floors.vectors(["露营帐篷", "家庭露营帐篷", "瑜伽垫"])
    three, two = math.log(4 / 2) + 1, math.log(4 / 3) + 1  # rarity of what one title has, and of what the first two have
    shared, own = 7 * two**2, 5 * three**2  # 露 营 帐 篷 露营 营帐 帐篷; 家 庭 家庭 庭露 and of 瑜伽垫 five
    alike = math.sqrt(shared / (shared + own - three**2))
    np.testing.assert_allclose((found @ found.T).toarray(), [[1, alike, 0], [alike, 1, 0], [0, 0, 1]], rtol=1e-6)


def test_the_target_is_ranked_among_all_but_the_context():
    contexts = floors.contexts_of([bundles_lib.Case(0, np.array([0]), 2), bundles_lib.Case(1, np.array([1, 2]), 3)], 4)
    scores = np.array([[9.0, 3, 2, 1], [1, 5, 5, 1]])
    # First: only item 1 is above. Second: items 0 and 3 tie at places 1 and 2.
    assert floors.ranks(scores, contexts, np.array([2, 3])).tolist() == [2, 1.5]


def test_hits_by_hand():
    found = floors.hits(np.array([1, 3, 11]), 10)
    assert found["hr@10"] == pytest.approx(2 / 3) and found["ndcg@10"] == pytest.approx((1 + 1 / 2) / 3)


def test_neighbours_by_hand():
    from scipy import sparse

    rows = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0]], np.float32))
    scores = floors.neighbours(rows)(sparse.csr_array(np.array([[1, 0, 0]], np.float32)))
    np.testing.assert_allclose(scores, [[1, 2 / math.sqrt(3 * 2), 1 / math.sqrt(3)]], rtol=1e-6)


def shop(groups=12, each=6, count=400):
    """Bundles of three of a group's items; an item's title names its group, a bundle's intent too; events repeat the bundles."""
    rng = np.random.default_rng(0)
    items = Catalogue([str(n) for n in range(groups * each)], [f"thing{n} group{n // each}" for n in range(groups * each)], [{}] * groups * each)
    group = rng.integers(0, groups, count)
    members = np.stack([g * each + rng.choice(each, 3, replace=False) for g in group])
    intents = [f"for group{g} people of kind {g}" for g in group]
    pairs, time = np.stack([np.arange(count), np.arange(count)], 1), np.arange(count)
    bundles = bundles_lib.build([f"b{n}" for n in range(count)], np.repeat(np.arange(count), 3), members.ravel(), len(items), intents, pairs, time)
    data = build([f"u{n}" for n in range(count)], items, np.repeat(np.arange(count), 3), members.ravel(), np.repeat(time, 3))
    return data, bundles


def test_every_floor_but_popularity_finds_the_group():
    data, bundles = shop()
    found = floors.completion(data, bundles)
    scores = {name: s["hr@10"] for name, s in found["floors"].items()}
    assert found["cases"] == len(bundles.of("test")) and found["items"] == 72 and found["targets_in_train"] == 1
    assert scores["popularity"] < 0.5 and min(v for n, v in scores.items() if n != "popularity") == 1
    assert found["fresh_cases"] == found["cases"] and found["fresh"] == found["floors"]
    shared = bundles_lib.Bundles(bundles.ids, bundles.items, bundles.intents, bundles.pairs * [0, 1], bundles.time * 0)
    assert floors.completion(data, shared)["fresh_cases"] == 0 and floors.completion(data, shared)["fresh"] == {}
    assert all(s["ndcg@10"] <= s["hr@10"] for s in found["floors"].values())


def test_test_bundles_lend_nothing_to_the_floors():
    data, bundles = shop()
    cases = bundles_lib.completion_cases(bundles)
    other = bundles.items.toarray()
    free = (set(range(72)) - set(bundles.members(cases[0].bundle).tolist())).pop()
    other[cases[0].bundle, cases[0].target], other[cases[0].bundle, free] = 0, 1
    changed = bundles_lib.Bundles(bundles.ids, type(bundles.items)(other), bundles.intents, bundles.pairs, bundles.time)
    contexts = floors.contexts_of(cases, 72)
    for scorer in (floors.popularity, lambda b: floors.neighbours(b.items[b.of("train")])):
        np.testing.assert_array_equal(scorer(bundles)(contexts), scorer(changed)(contexts))
    left = bundles_lib.without_bundles(data, bundles)
    assert set(left.user.tolist()) == set(bundles.of("train").tolist())


def test_intents_come_from_the_nearest_train_bundle():
    data, bundles = shop()
    retrieved, wanted = floors.nearest_intents(data.items, bundles)
    assert retrieved == wanted and len(wanted) == len(bundles.of("test"))
    scores = floors.intents(data.items, bundles)["intents"]
    assert scores["nearest_bundle"]["exact"] == scores["nearest_bundle"]["rouge_l"] == pytest.approx(100)
    assert scores["nearest_bundle"]["bleu_4"] > scores["most_frequent"]["bleu_4"] and scores["most_frequent"]["exact"] < 30


def test_floors_find_what_is_alike_in_chinese():
    titles = ["露营帐篷", "家庭露营帐篷", "瑜伽垫", "加厚瑜伽垫", "儿童帐篷", "瑜伽服"]
    items = Catalogue(list("abcdef"), titles, [{}] * 6)
    contexts = floors.contexts_of([bundles_lib.Case(0, np.array([0]), 1), bundles_lib.Case(1, np.array([3]), 2)], 6)
    assert floors.ranks(floors.similar_titles(items)(contexts), contexts, np.array([1, 2])).tolist() == [1, 1]
    pairs, sold = np.stack([np.arange(8), np.arange(8)], 1), np.tile([0, 1, 2, 3], 4)
    bundles = bundles_lib.build(list("12345678"), np.repeat(np.arange(8), 2), sold, 6, ["去山里露营", "在家练瑜伽"] * 4, pairs, np.arange(8))
    found = similar_bundles.SimilarBundles(items, bundles).intents([[4], [5]], 1)
    assert found == [["去山里露营"], ["在家练瑜伽"]]


def test_chinese_intents_are_scored_by_characters():
    data, bundles = shop()
    named = dataclasses.replace(bundles, intents=[f"适合第{chr(0x4E00 + int(intent.split()[-1]))}类人" for intent in bundles.intents])
    scores = floors.intents(data.items, named)["intents"]
    assert set(scores["nearest_bundle"]) == {"rouge_1_char", "rouge_l_char", "bleu_1_char", "bleu_2_char", "bleu_4_char", "exact"}
    assert all(score == pytest.approx(100) for score in scores["nearest_bundle"].values())
    right = scores["most_frequent"]["exact"] / 100  # where it is wrong, one of six characters is
    assert scores["most_frequent"]["rouge_1_char"] == pytest.approx(100 * (right + (1 - right) * 5 / 6), abs=1e-3) and right < 0.3


def test_attributes_are_part_of_an_items_text():
    items = Catalogue(["a"], ["Lamp"], [{"category": ["Home", "Light"], "price": 3}])
    assert similar_bundles.text_of(items, 0) == "Lamp Home Light 3"
