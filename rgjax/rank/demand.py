"""Demand: how many pieces of each item a shop sells a week, forecast by simple rules and by a learned model (`demand_model`).

Weeks are stretches of seven days counted back from the last day of the data, so the newest is whole; what is left at the start is dropped.
The error is WAPE = sum |y - f| / sum y over all items and the weeks of the test: how many pieces are misplaced per piece sold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError

WEEK, _DAY = 7 * 86_400, 86_400
TEST_WEEKS = 8
YEAR = 52


@dataclasses.dataclass(frozen=True, eq=False)
class Demand:
    """Weekly demand of I items in W weeks, oldest first.

    `quantity` float64 [I, W] is pieces sold (events count 1 where the source has no quantities). `price` float64 [I, W] is the mean price
    paid in the item's latest week with a sale up to then, NaN before its first. `orders` float64 [I, W] counts the events: many
    pieces in few orders will hardly come again. `starts` int64 [W] are seconds.
    """

    quantity: np.ndarray
    price: np.ndarray
    orders: np.ndarray
    starts: np.ndarray

    @property
    def weeks(self) -> int:
        """W."""
        return self.quantity.shape[1]


def weekly(data: Interactions) -> Demand:
    """Demand of every item, of unknown shoppers too; raises UserError when the data covers less than `TEST_WEEKS` + 4 weeks."""
    end = int(-(-(data.time.max() + 1) // _DAY) * _DAY)
    weeks = int((end - data.time.min()) // WEEK)
    if weeks < TEST_WEEKS + 4:
        raise UserError(f"The shop's interactions cover {weeks} weeks; a forecast of demand needs {TEST_WEEKS + 4} at least.")
    week = weeks - 1 - (end - 1 - data.time) // WEEK
    kept = week >= 0
    item, week, shape = data.item[kept], week[kept], (len(data.items), weeks)
    pieces = np.nan_to_num(data.quantity[kept].astype(float), nan=1.0)
    quantity, orders, paid, priced = (np.zeros(shape) for _ in range(4))
    np.add.at(quantity, (item, week), pieces)
    np.add.at(orders, (item, week), 1)
    known = ~np.isnan(data.price[kept])
    np.add.at(paid, (item[known], week[known]), (pieces * data.price[kept])[known])
    np.add.at(priced, (item[known], week[known]), pieces[known])
    with np.errstate(invalid="ignore", divide="ignore"):
        price = _carried(paid / priced)
    return Demand(quantity, price, orders, end - WEEK * np.arange(weeks, 0, -1))


def _carried(values: np.ndarray) -> np.ndarray:
    """Each row's NaN replaced by the latest number before it."""
    places = np.where(np.isnan(values), -1, np.arange(values.shape[1]))
    latest = np.maximum.accumulate(places, 1)
    return np.where(latest < 0, np.nan, np.take_along_axis(values, np.maximum(latest, 0), 1))


def wape(actual: np.ndarray, forecast: np.ndarray) -> float:
    """sum |actual - forecast| / sum actual; NaN where nothing was sold."""
    sold = float(np.sum(actual))
    return float(np.abs(actual - forecast).sum() / sold) if sold else float("nan")


# A forecaster maps (quantities before the origin [I, T], weeks ahead H) to [I, H]: the weeks T .. T + H - 1.
Forecaster = Callable[[np.ndarray, int], np.ndarray]


def last_week(past: np.ndarray, ahead: int) -> np.ndarray:
    """The latest week again."""
    return np.repeat(past[:, -1:], ahead, 1)


def seasonal_naive(past: np.ndarray, ahead: int) -> np.ndarray:
    """The same week a year (52 weeks) before; the latest week where the data does not reach back so far."""
    weeks = past.shape[1]
    columns = [weeks + h - YEAR if weeks + h >= YEAR and h < YEAR else weeks - 1 for h in range(ahead)]
    return past[:, columns]


def moving_average(past: np.ndarray, ahead: int, width: int = 4) -> np.ndarray:
    """The mean of the latest `width` weeks."""
    return np.repeat(past[:, -width:].mean(1, keepdims=True), ahead, 1)


def moving_median(past: np.ndarray, ahead: int, width: int = 8) -> np.ndarray:
    """The median of the latest `width` weeks: what absolute errors ask for when demand is lumpy."""
    return np.repeat(np.median(past[:, -width:], 1, keepdims=True), ahead, 1)


FLOORS: dict[str, Forecaster] = {
    "last_week": last_week, "seasonal_naive": seasonal_naive, "moving_average_4": moving_average, "moving_median_8": moving_median,
}  # fmt: skip


def rolling(demand: Demand, forecaster: Forecaster, test: int = TEST_WEEKS) -> np.ndarray:
    """[I, test]: each of the last `test` weeks forecast from all weeks before it."""
    return np.concatenate([forecaster(demand.quantity[:, :week], 1) for week in range(demand.weeks - test, demand.weeks)], 1)


def ahead(demand: Demand, forecaster: Forecaster, test: int = TEST_WEEKS) -> np.ndarray:
    """[I, test]: the last `test` weeks forecast at once from all weeks before the first of them."""
    return forecaster(demand.quantity[:, : demand.weeks - test], test)
