"""A global model of weekly demand: one small network for all items that mixes simple forecasts and scales their mixture.

From what is known at an item's origin (its latest weeks, price, age, how the whole shop is doing) and the number of weeks ahead, a network
with one hidden layer gives the shares of a mixture of simple forecasts (`CANDIDATES`) and a factor. Where it has learnt nothing it is
still a mean of sensible forecasts. It is fitted to the sum of absolute errors, which is WAPE's numerator. Several networks that differ
in their random start are averaged.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rgjax.data.interactions import Interactions
from rgjax.rank.demand import FLOORS, TEST_WEEKS, YEAR, Demand, ahead, rolling, wape, weekly

CANDIDATES = ("last week", "mean of 4", "median of 4", "mean of 8", "median of 8", "mean of 13", "mean of 8 but the best", "usual orders", "nothing")
_FIRST = 8  # weeks that must lie before an origin
_WIDTH, _BATCH, _RATE, _MEMBERS = 64, 4096, 1e-3, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Fitted networks (their weights stacked along axis 0), the mean and deviation of each feature, and whether they know seasons."""

    weights: dict
    center: np.ndarray
    spread: np.ndarray
    seasonal: bool

    def forecast(self, demand: Demand, origin: int, ahead: int) -> np.ndarray:
        """float64 [I, ahead]: the weeks origin .. origin + ahead - 1 from those before `origin`; 0 for items never sold before."""
        found = []
        for h in range(1, ahead + 1):
            features, candidates = inputs(demand, origin, h, self.seasonal)
            scaled = (features - self.center) / self.spread
            found.append(np.asarray(_members(self.weights, scaled, candidates).mean(0), float))
        return np.stack(found, 1)


def inputs(demand: Demand, origin: int, h: int, seasonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is known of each item before week `origin` for the week `h` weeks on (1: the origin itself): features float32 [I, F] and
    candidates float32 [I, K]. Nothing of week `origin` or later enters.
    """
    past = demand.quantity[:, :origin]
    recent = np.pad(past, ((0, 0), (max(0, 13 - origin), 0)))[:, -13:]
    orders = np.pad(demand.orders[:, :origin], ((0, 0), (max(0, 8 - origin), 0)))[:, -8:]
    sizes = np.where(orders > 0, recent[:, -8:] / np.maximum(orders, 1), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without any order: 0 pieces each
        usual_orders = orders[:, -4:].mean(1) * np.nan_to_num(np.nanmedian(sizes, 1))
    candidates = np.stack(
        [
            recent[:, -1], recent[:, -4:].mean(1), np.median(recent[:, -4:], 1), recent[:, -8:].mean(1), np.median(recent[:, -8:], 1),
            recent.mean(1), np.sort(recent[:, -8:], 1)[:, :-1].mean(1), usual_orders, np.zeros(len(past)),
        ],
        1,
    )  # fmt: skip
    scale = 1 + recent[:, -8:].mean(1, keepdims=True)
    price, total = demand.price[:, :origin], past.sum(0)
    usual = np.where(np.isnan(price), 0, price).sum(1) / np.maximum((~np.isnan(price)).sum(1), 1)
    cheaper = np.log(np.where(np.isnan(price[:, -1]), usual, price[:, -1]) + 0.01) - np.log(usual + 0.01)
    sold = past > 0
    age = np.where(sold.any(1), origin - sold.argmax(1), 0)
    shop = [np.log((total[-k:].mean() + 1) / (total[-13:].mean() + 1)) for k in (1, 4)]
    columns = [
        np.log1p(recent[:, -8:] / scale), np.log1p(candidates[:, :-1] / scale), np.log(scale), np.log1p(past.mean(1, keepdims=True)),
        (recent[:, -8:] == 0).mean(1, keepdims=True), np.log1p(recent[:, -8:].std(1, keepdims=True) / scale),
        np.minimum(age, 26)[:, None], cheaper[:, None], np.log1p(usual)[:, None], np.log1p(orders[:, -4:]),
        np.log1p(orders.mean(1, keepdims=True)), np.tile([h, *shop], (len(past), 1)),
    ]  # fmt: skip
    if seasonal:
        phase = 2 * np.pi * ((demand.starts[0] / (7 * 86_400) + origin + h - 1) % YEAR) / YEAR
        back = origin + h - 1 - YEAR
        columns += [np.tile([np.sin(phase), np.cos(phase)], (len(past), 1)), np.log1p(past[:, back : back + 1] / scale)]
    return np.concatenate(columns, 1).astype(np.float32), candidates.astype(np.float32)


def fit(demand: Demand, cut: int, seed: int = 0, steps: int = 1000) -> Model:
    """Fits to the weeks before `cut` (a week's number), forecast 1 to 8 weeks ahead from every origin that has 8 weeks before it.

    Seasons are learnt only from more than a year and 8 weeks: a calendar seen once tells nothing about the next one.
    """
    seasonal = cut > YEAR + 2 * TEST_WEEKS
    first = YEAR if seasonal else min(_FIRST, cut - 1)
    rows = []
    for origin in range(first, cut):
        alive = demand.quantity[:, :origin].any(1)  # of the others nothing is known but that they forecast 0
        for h in range(1, min(TEST_WEEKS, cut - origin) + 1):
            features, candidates = inputs(demand, origin, h, seasonal)
            rows.append((features[alive], candidates[alive], demand.quantity[alive, origin + h - 1].astype(np.float32)))
    features, candidates, actual = (np.concatenate(column) for column in zip(*rows, strict=True))
    center, spread = features.mean(0), features.std(0) + 1e-3
    scale = np.float32(max(actual.mean(), 1e-6))
    weights = _fit((features - center) / spread, candidates / scale, actual / scale, jax.random.split(jax.random.key(seed), _MEMBERS), steps)
    return Model(jax.tree.map(np.asarray, weights), center, spread, seasonal)


def _start(key: jax.Array, features: int) -> dict:
    """Weights of one network; its mixture starts out even and its factor at 1."""
    hidden = jax.random.normal(key, (features, _WIDTH)) / np.sqrt(features)
    return {"in": hidden, "bias": jnp.zeros(_WIDTH), "out": jnp.zeros((_WIDTH, len(CANDIDATES) + 1)), "even": jnp.zeros(len(CANDIDATES) + 1)}


def _predict(weights: dict, features: jax.Array, candidates: jax.Array) -> jax.Array:
    """[N]: the mixture of `candidates` [N, K], scaled by at most e or 1 / e."""
    out = jax.nn.gelu(features @ weights["in"] + weights["bias"]) @ weights["out"] + weights["even"]
    return (jax.nn.softmax(out[:, :-1]) * candidates).sum(1) * jnp.exp(jnp.tanh(out[:, -1]))


@jax.jit
def _members(weights: dict, features: jax.Array, candidates: jax.Array) -> jax.Array:
    """[M, N]: what each network says."""
    return jax.vmap(_predict, (0, None, None))(weights, features, candidates)


@functools.partial(jax.jit, static_argnames="steps")
def _fit(features: jax.Array, candidates: jax.Array, actual: jax.Array, keys: jax.Array, steps: int) -> dict:
    """Adam on the mean absolute error with a cosine decay; the networks are fitted side by side."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(_RATE, steps), weight_decay=1e-3))

    def loss(weights, rows):
        return jnp.abs(_predict(weights, features[rows], candidates[rows]) - actual[rows]).mean()

    def step(carry, key):
        weights, state = carry
        gradient = jax.grad(loss)(weights, jax.random.randint(key, (_BATCH,), 0, len(actual)))
        updates, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    def member(key):
        start = _start(key, features.shape[1])
        return jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, steps))[0][0]

    return jax.lax.map(member, keys)


def evaluate(data: Interactions, seed: int = 0) -> dict:
    """WAPE on the last 8 weeks, week by week ('rolling') and all at once ('ahead'), of every floor and of the learned model.

    The model is fitted to the weeks before those 8 only and not refitted within them.
    """
    demand = weekly(data)
    actual = demand.quantity[:, -TEST_WEEKS:]
    found = {
        name: {"rolling": wape(actual, rolling(demand, f)), "ahead": wape(actual, ahead(demand, f))} for name, f in FLOORS.items()
    }
    model = fit(demand, demand.weeks - TEST_WEEKS, seed)
    learned = {
        "rolling": np.concatenate([model.forecast(demand, week, 1) for week in range(demand.weeks - TEST_WEEKS, demand.weeks)], 1),
        "ahead": model.forecast(demand, demand.weeks - TEST_WEEKS, TEST_WEEKS),
    }
    found["learned"] = {name: wape(actual, forecast) for name, forecast in learned.items()}
    return {"weeks": demand.weeks, "items": len(demand.quantity), "pieces": float(actual.sum()), "wape": found}
