"""Next basket: orders, fading frequencies and recall on examples worked out by hand."""

import numpy as np
import pytest

from rgjax.data.interactions import Catalogue, build
from rgjax.errors import UserError
from rgjax.rank import next_basket


def shop(rows, items=5, users=("", "u", "v", "w"), with_basket=True):
    """Interactions of (user, item, time, basket)."""
    user, item, time, basket = np.array(rows).T
    catalogue = Catalogue([f"i{n}" for n in range(items)], [""] * items, [{}] * items)
    return build(list(users), catalogue, user, item, time, basket=basket if with_basket else None)


ROWS = [
    (0, 4, 1, 90), (0, 4, 2, 91), (0, 4, 12, 92),
    (1, 0, 1, 1), (1, 1, 1, 1), (1, 0, 3, 2), (1, 0, 3, 2), (1, 2, 5, 3), (1, 3, 11, 4), (1, 0, 11, 4), (1, 1, 20, 5),
    (2, 1, 2, 6), (2, 2, 15, 7),
    (3, 3, 13, 8),
]  # fmt: skip


def test_the_next_order_is_the_first_after_the_cut_of_those_known_before():
    orders = next_basket.next_orders(shop(ROWS), 10)
    assert orders.user.tolist() == [1, 2] and [t.tolist() for t in orders.truth] == [[0, 3], [2]]
    assert set(orders.past.user.tolist()) == {1, 2} and orders.past.time.max() < 10
    with pytest.raises(UserError, match="No known shopper"):
        next_basket.next_orders(shop(ROWS), 1)


def test_events_of_one_time_are_an_order_where_none_is_given():
    with_, without = (next_basket.next_orders(shop(ROWS, with_basket=b), 10) for b in (True, False))
    assert [t.tolist() for t in with_.truth] == [t.tolist() for t in without.truth]
    mixed = next_basket.basket_of(shop([(1, 0, 5, -1), (1, 1, 5, -1), (1, 2, 5, 7), (2, 0, 5, -1)]))
    assert mixed[0] == mixed[1] and len(set(mixed.tolist())) == 3


def test_frequencies_count_orders_not_lines():
    past = next_basket.next_orders(shop(ROWS), 10).past
    assert next_basket.frequencies(past).toarray()[1].tolist() == [2, 1, 1, 0, 0]
    assert next_basket.frequencies(past).toarray()[2].tolist() == [0, 1, 0, 0, 0]


def test_fading_by_hand():
    past = next_basket.next_orders(shop(ROWS), 10).past
    # Three orders {0, 1}, {0}, {2} in two groups: the newest two, of which {0} is one older, and the oldest alone.
    found = next_basket.faded(past, within=0.5, across=0.1, groups=2).toarray()[1]
    group_new, group_old = np.array([0.5, 0, 1, 0, 0]) / 2, np.array([1.0, 1, 0, 0, 0])
    np.testing.assert_allclose(found, (group_new + 0.1 * group_old) / 2, rtol=1e-6)
    found = next_basket.faded(past, within=0.3, across=0.5, groups=0).toarray()[1]
    np.testing.assert_allclose(found, np.array([0.25 + 0.5, 0.25, 1, 0, 0]) / 3, rtol=1e-6)


def test_neighbours_are_the_nearest_others():
    rows = [(1, 0, 1, 1), (2, 0, 1, 2), (2, 1, 1, 2), (3, 3, 1, 3), (1, 0, 20, 9), (2, 0, 20, 8), (3, 3, 20, 7)]
    orders = next_basket.next_orders(shop(rows), 10)
    scores = next_basket.Tifu(groups=0, neighbours=1, own=0.6)(orders)
    # To {0} and to {3} nearest is, of {0}, {0, 1} and {3}: {0, 1} at distance 1, and {0} at distance sqrt 2.
    np.testing.assert_allclose(scores[0], [1, 0.4, 0, 0, 0], atol=2e-6)
    np.testing.assert_allclose(scores[2], [0.4, 0, 0, 0.6, 0], atol=2e-6)


def test_popularity_decides_only_among_equals():
    orders = next_basket.next_orders(shop(ROWS), 10)
    scores = next_basket.personal(orders)
    assert np.argsort(-scores[0], kind="stable")[:3].tolist() == [0, 1, 2]  # 1 and 2 are equal, 1 is in two orders
    assert next_basket.popular(orders)[0].tolist() == [2, 2, 1, 0, 0]


def test_recall_by_hand():
    scores = np.array([[5.0, 4, 3, 2], [1, 1, 1, 1]])
    assert next_basket.recall(scores, [np.array([0, 3]), np.array([1, 2, 3])], 2) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_habits_beat_popularity():
    rng, rows = np.random.default_rng(0), []
    for user in range(1, 80):
        own = rng.choice(60, 5, replace=False)
        rows += [(user, i, t * 7 * 86_400, user * 100 + t) for t in range(20) for i in rng.choice(own, 3, replace=False)]
    found = next_basket.evaluate(shop(rows, 60, [""] + [f"u{n}" for n in range(79)]), 5)
    scores = found["recall@5"]
    assert found["shoppers"] == 79 and found["items_an_order"] == 3
    assert scores["personal"] > 0.95 and scores["tifu_knn"] > 0.95 > 0.5 > scores["popular"]
