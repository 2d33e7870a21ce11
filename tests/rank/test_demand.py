"""Demand: weeks, floors and the error on examples worked out by hand; the model sees nothing of the future and beats the floors."""

import numpy as np
import pytest

from rgjax.data.interactions import Catalogue, build
from rgjax.errors import UserError
from rgjax.rank import demand, demand_model
from rgjax.rank.demand import Demand

DAY = 86_400


def shop(rows, items=2):
    """Interactions of (item, day, quantity, price)."""
    item, day, quantity, price = np.array(rows, float).T
    catalogue = Catalogue([f"i{n}" for n in range(items)], [""] * items, [{}] * items)
    return build(["", "u"], catalogue, np.arange(len(rows)) % 2, item, (day * DAY).astype(int), quantity=quantity, price=price)


def test_weeks_are_counted_back_from_the_last_day():
    rows = [(0, 0, 100, 1), (0, 2, 5, 2.0), (0, 8, 1, 3.0), (1, 9, 4, 7.0), (1, 15, 2, 8.0), (1, 15, 6, 4.0), (0, 85.5, np.nan, np.nan)]
    found = demand.weekly(shop(rows))
    # Days 0 and 1 are left over: 86 days are 12 weeks and 2 days.
    assert found.weeks == 12 and found.starts.tolist() == [(2 + 7 * w) * DAY for w in range(12)]
    assert found.quantity[0].tolist() == [6] + [0] * 10 + [1]
    assert found.quantity[1, :3].tolist() == [0, 12, 0]
    assert found.orders[0, 0] == 2 and found.orders[1, 1] == 3
    assert found.price[0, 0] == pytest.approx((5 * 2 + 1 * 3) / 6) and found.price[0, 11] == found.price[0, 0]
    assert np.isnan(found.price[1, 0]) and found.price[1, 5] == pytest.approx((4 * 7 + 2 * 8 + 6 * 4) / 12)


def test_too_few_weeks_are_refused():
    with pytest.raises(UserError, match="cover 11 weeks; .* needs 12"):
        demand.weekly(shop([(0, 0, 1, 1), (0, 76.5, 1, 1)]))


def test_wape_by_hand():
    assert demand.wape(np.array([[4, 0], [6, 10]]), np.array([[1, 2], [6, 15]])) == pytest.approx((3 + 2 + 0 + 5) / 20)
    assert np.isnan(demand.wape(np.zeros(2), np.ones(2)))


def test_floors_by_hand():
    past = np.array([[1.0, 2, 3, 10]])
    assert demand.last_week(past, 2).tolist() == [[10, 10]]
    assert demand.moving_average(past, 1, 3).tolist() == [[5]] and demand.moving_median(past, 1, 3).tolist() == [[3]]
    year = np.arange(53.0)[None]
    # The weeks 53, 54 and 55 lie 52 after the weeks 1, 2 and 3.
    assert demand.seasonal_naive(year, 3).tolist() == [[1, 2, 3]]
    # Of the weeks 51 and 52 only the latter has a week 52 before it.
    assert demand.seasonal_naive(year[:, :51], 2).tolist() == [[50, 0]]


def test_origins_roll_or_stand():
    quantity = np.arange(12.0)[None]
    made = Demand(quantity, quantity, quantity, np.arange(12))
    assert demand.rolling(made, demand.last_week, 3).tolist() == [[8, 9, 10]]
    assert demand.ahead(made, demand.last_week, 3).tolist() == [[8, 8, 8]]


def made_up(items=150, weeks=44, seed=0):
    """Lumpy sales around a level that wanders, which triples in the week after a low price."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(1.5, 1, (items, 1)) + np.cumsum(rng.normal(0, 0.1, (items, weeks)), 1))
    cheap = rng.random((items, weeks)) < 0.2
    boost = np.concatenate([np.ones((items, 1)), np.where(cheap, 3.0, 1.0)[:, :-1]], 1)
    quantity = rng.poisson(level * boost).astype(float)
    price = np.where(cheap, 4.0, 5.0)
    return Demand(quantity, price, np.minimum(quantity, 5), np.arange(weeks) * demand.WEEK)


@pytest.fixture(scope="module")
def fitted():
    made = made_up()
    return made, demand_model.fit(made, 36, steps=250)


def test_the_learned_model_beats_every_floor(fitted):
    made, model = fitted
    actual = made.quantity[:, -8:]
    learned = np.concatenate([model.forecast(made, week, 1) for week in range(36, 44)], 1)
    best = min(demand.wape(actual, demand.rolling(made, floor)) for floor in demand.FLOORS.values())
    assert demand.wape(actual, learned) < 0.9 * best  # a low price foretells a week of three times the sales
    best = min(demand.wape(actual, demand.ahead(made, floor)) for floor in demand.FLOORS.values())
    assert demand.wape(actual, model.forecast(made, 36, 8)) < best


def test_nothing_of_the_future_enters(fitted):
    made, model = fitted
    later = np.arange(made.weeks) >= 36
    other = Demand(*(np.where(later, np.float64(1e4), a) for a in (made.quantity, made.price, made.orders)), made.starts)
    np.testing.assert_array_equal(model.forecast(made, 36, 8), model.forecast(other, 36, 8))
    once, again = (demand_model.fit(d, 36, steps=5) for d in (made, other))
    for name, values in once.weights.items():
        np.testing.assert_array_equal(values, again.weights[name])
    assert not np.array_equal(model.forecast(made, 37, 1), model.forecast(other, 37, 1))


def test_seasons_enter_only_when_a_year_and_more_is_known(fitted):
    assert not fitted[1].seasonal
    made = made_up(items=20, weeks=80)
    short, _ = demand_model.inputs(made, 70, 2, False)
    long, _ = demand_model.inputs(made, 70, 2, True)
    assert long.shape[1] == short.shape[1] + 3
    scale = 1 + made.quantity[:, 62:70].mean(1)
    model = demand_model.fit(made, 72, steps=5)
    assert model.seasonal and np.isfinite(model.forecast(made, 72, 8)).all()
    np.testing.assert_allclose(long[:, -1], np.log1p(made.quantity[:, 71 - 52] / scale), rtol=1e-6)


def test_items_never_sold_are_forecast_nothing(fitted):
    made, model = fitted
    quantity = made.quantity.copy()
    quantity[3, :36] = 0
    assert not model.forecast(Demand(quantity, made.price, made.orders, made.starts), 36, 2)[3].any()
