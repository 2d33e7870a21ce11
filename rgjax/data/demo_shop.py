"""The synthetic shop as interactions (--layout=demo_shop): the items and shoppers of `rgjax.data.demo`, seeded, with known truth.

A shopper buys a few items at a time over 60 weeks. Nearly half of the time the next item is one of three that go with the last one (the
same for everybody, mostly of the same category), else it is drawn from the shopper's tastes, so what comes next depends on order, then
on taste, and hardly on popularity. Cold items have no events at all and cold shoppers one order only. Bundles are what goes together;
triples say category, brand and material. Prices drop by a fifth every ninth week of an item, and then twice as many pieces are bought.
The data is synthetic: scores on it say that the machinery works, not how good it is.
"""

from __future__ import annotations

import random

import numpy as np

from rgjax.config import PrepareConfig
from rgjax.data import bundles as bundles_lib
from rgjax.data import demo
from rgjax.data.interactions import Catalogue, build
from rgjax.data.shops.common import Found

_START, _DAY, _WEEKS = 1_700_000_000, 86_400, 60
_COLD_SHARE = 0.1  # of the items, and of the shoppers
_FOLLOWS = 0.45  # share of purchases that go with the one before
_RELATIONS = ("category", "brand", "material")


def make(config: PrepareConfig) -> tuple[Found, dict]:
    """(the shop in English, what a real one never knows: tastes, cold users and items, and what goes with what)."""
    items, users = demo.make_items(config), demo.make_users(config)
    rng = random.Random(f"demo shop {config.seed}")
    cold = set(rng.sample(range(len(items)), max(1, int(_COLD_SHARE * len(items)))))
    warm = [n for n in range(len(items)) if n not in cold]
    follows = {n: _partners(rng, n, items, warm) for n in warm}
    rows = []
    for number, user in enumerate(users):
        orders = 1 if number % 10 == 9 else rng.randint(4, 14)
        rows += _orders(rng, number, user, items, warm, follows, orders)
    user, item, time, price, quantity, basket = map(np.array, zip(*rows, strict=True))
    attributes = [item_.attributes(0) for item_ in items]
    catalogue = Catalogue([i.id for i in items], [i.title(0) for i in items], attributes)
    profiles = [{"loves": max(u.tastes, key=u.tastes.get)} for u in users]
    # Order numbers are those of the loop: each shopper's orders are consecutive.
    data = build(
        [u.id for u in users], catalogue, user, item, time, price=price, quantity=quantity, basket=basket, events=("purchase",),
        profiles=profiles, **_triples(attributes),
    )  # fmt: skip
    truth = {
        "synthetic": True,
        "users": {u.id: {"tastes": u.tastes} for u in users},
        "follows": {items[n].id: [items[p].id for p in partners] for n, partners in follows.items()},
        "cold": {"users": [u.id for n, u in enumerate(users) if n % 10 == 9], "items": [items[n].id for n in sorted(cold)]},
    }
    return Found(data, _bundles(follows, len(items), data), {}), truth


def _partners(rng: random.Random, item: int, items: list[demo.Item], warm: list[int]) -> list[int]:
    """Two items of the same category, where there are such, and one of any."""
    near = [n for n in warm if n != item and items[n].category == items[item].category]
    chosen = rng.sample(near, min(2, len(near)))
    return chosen + rng.sample([n for n in warm if n != item and n not in chosen], 3 - len(chosen))


def _orders(rng: random.Random, number: int, user: demo.User, items, warm: list[int], follows: dict, count: int) -> list[tuple]:
    """(user, item, time, price, quantity, order) of every line of `count` orders."""
    weights = [user.tastes[items[n].category] for n in warm]
    days = sorted(rng.sample(range(_WEEKS * 7), count))
    rows, last = [], None
    for place, day in enumerate(days):
        bought: set[int] = set()
        for _ in range(rng.randint(2, 5)):
            follow = last is not None and rng.random() < _FOLLOWS
            item = rng.choice(follows[last]) if follow else rng.choices(warm, weights)[0]
            if item in bought:
                continue
            reduced = (day // 7 + item) % 9 == 0
            price = items[item].price * (0.8 if reduced else 1.0)
            quantity = rng.randint(1, 2) * (2 if reduced else 1)
            rows.append((number, item, _START + day * _DAY + 60 * len(bought), price, quantity, number * _WEEKS * 7 + place))
            bought.add(item)
            last = item
    return rows


def _triples(attributes: list[dict]) -> dict:
    entities, triples = {}, []
    for item, values in enumerate(attributes):
        for relation, name in enumerate(_RELATIONS):
            value = values[name][0] if isinstance(values[name], list) else values[name]
            tail = len(attributes) + entities.setdefault(f"{name}: {value}", len(entities))
            triples.append((item, relation, tail))
    return {"triples": np.array(triples, np.int32), "entities": list(entities), "relations": _RELATIONS}


def _bundles(follows: dict[int, list[int]], items: int, data) -> bundles_lib.Bundles:
    """One bundle per warm item: itself and what goes with it; whoever bought three of its items owns it, from the last purchase on."""
    rows = [(n, member) for n, (item, partners) in enumerate(follows.items()) for member in (item, *partners)]
    bundle, item = np.array(rows).T
    names = [f"b{n}" for n in range(len(follows))]
    made = bundles_lib.build(names, bundle, item, items)
    user, owned = (data.matrix @ made.items.T > 2.5).nonzero()
    own = [slice(data.offsets[u], data.offsets[u + 1]) for u in user]
    latest = [data.time[o][np.isin(data.item[o], made.members(b))].max() for o, b in zip(own, owned, strict=True)]
    intents = [f"{data.items.titles[lead].lower()} and what goes with it in {_category(data, lead)}" for lead in follows]
    return bundles_lib.build(names, bundle, item, items, intents, np.stack([user, owned], 1), latest)


def _category(data, item: int) -> str:
    return data.items.attributes[item]["category"][0]
