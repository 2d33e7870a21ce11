"""Next basket: which items a known shopper's next order holds, from the orders before.

The floors: what most buy (`popular`), what the shopper bought most often (`personal`), and TIFU-kNN (Hu, He, Gao, Zhang 2020, "Modeling
Personalized Item Frequency Information for Next-basket Recommendation"): frequencies that fade with each order since, mixed with those of
the shoppers most like this one. Where a rule does not tell items apart, the popular ones come first.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions, before
from rgjax.errors import UserError

_TEST_SECONDS = 8 * 7 * 86_400
_BLOCK = 512  # shoppers scored at once


@dataclasses.dataclass(frozen=True, eq=False)
class Orders:
    """What known shoppers did before `cut`, and their first order from then on.

    `past`: their events before. `user` int [N]: the shoppers with both; `truth`: for each the items of the order, ascending.
    """

    past: Interactions
    user: np.ndarray
    truth: list[np.ndarray]


def basket_of(data: Interactions) -> np.ndarray:
    """int64 [E]: a number for each event's order, that of its basket or, without one, of its user and time."""
    pair = np.stack([data.user, data.basket if len(data.basket) else data.time], 1).astype(np.int64)
    alone = len(data.basket) > 0 and (data.basket < 0).any()
    if alone:  # an event without an order is one of its own time
        pair[:, 1] = np.where(data.basket < 0, -1 - data.time, data.basket)
    return np.unique(pair, axis=0, return_inverse=True)[1].reshape(-1)


def next_orders(data: Interactions, cut: int) -> Orders:
    """Splits at time `cut` (seconds); raises UserError where no known shopper ordered both before and after."""
    past, later = before(data.named(), cut)
    basket, user, truth = basket_of(later), [], []
    for u in range(len(data.users)):
        place = slice(later.offsets[u], later.offsets[u + 1])
        if place.start < place.stop and past.offsets[u] < past.offsets[u + 1]:
            user.append(u)
            truth.append(np.unique(later.item[place][basket[place] == basket[place.start]]))
    if not user:
        raise UserError("No known shopper has an order both before and after the cut; the next basket needs more interactions.")
    return Orders(past, np.array(user), truth)


def frequencies(data: Interactions) -> sparse.csr_array:
    """float32 [U, I]: in how many of a user's orders an item is."""
    return faded(data, within=1.0, across=1.0, groups=0, mean=False)


def faded(data: Interactions, within: float, across: float, groups: int, mean: bool = True) -> sparse.csr_array:
    """float32 [U, I]: the fading frequencies of TIFU-kNN.

    A user's orders are cut into `groups` of consecutive ones, all but the oldest of equal size (0: every order is a group). Within a group
    an order counts `within` ** (orders of the group since), a group `across` ** (groups since); with `mean`, both are means.
    """
    order = basket_of(data)
    latest = np.zeros(order.max() + 1, np.int64)
    np.maximum.at(latest, order, data.time)
    owner = np.zeros(len(latest), np.int64)
    owner[order] = data.user
    ranked = np.lexsort((latest, owner))
    firsts = np.searchsorted(owner[ranked], np.arange(len(data.users) + 1))
    age = np.empty(len(latest), np.int64)  # orders of the same user since
    age[ranked] = firsts[owner[ranked] + 1] - 1 - np.arange(len(latest))
    counts = np.diff(firsts)[owner]
    size = np.maximum(-(-counts // groups), 1) if groups else np.ones_like(counts)
    group, made = age // size, -(-counts // size)
    weight = within ** (age % size) * across**group
    if mean:
        held = np.where(group == made - 1, counts - (made - 1) * size, size)
        weight = weight / (held * made)
    rows = np.unique(np.stack([order, data.item], 1), axis=0)  # an item counts once an order
    cells = weight[rows[:, 0]].astype(np.float32), (owner[rows[:, 0]], rows[:, 1])
    return sparse.csr_array(cells, shape=(len(data.users), len(data.items)))


def popular(orders: Orders) -> np.ndarray:
    """float32 [N, I]: how many orders hold the item, the same for every shopper."""
    return np.tile(np.asarray(frequencies(orders.past).sum(0), np.float32), (len(orders.user), 1))


def personal(orders: Orders) -> np.ndarray:
    """float32 [N, I]: how many of the shopper's own orders hold the item; the popular ones come first among equals."""
    return _with_popularity(frequencies(orders.past)[orders.user].toarray(), orders)


@dataclasses.dataclass(frozen=True)
class Tifu:
    """TIFU-kNN; the defaults were chosen on Online Retail, on the 8 weeks before those of the test. `PAPER` has those for TaFeng."""

    within: float = 1.0
    across: float = 0.95
    groups: int = 0
    neighbours: int = 100
    own: float = 0.3

    def __call__(self, orders: Orders) -> np.ndarray:
        """float32 [N, I]: `own` of the shopper's fading frequencies, the rest the mean of those of the nearest others (Euclidean)."""
        vectors = faded(orders.past, self.within, self.across, self.groups)
        active = np.flatnonzero(np.diff(vectors.indptr))
        others = vectors[active].toarray()
        squares, place = (others**2).sum(1), np.searchsorted(active, orders.user)
        near = min(self.neighbours, len(active) - 1)
        found = np.empty((len(place), others.shape[1]), np.float32)
        for start in range(0, len(place), _BLOCK):
            mine = place[start : start + _BLOCK]
            distance = squares[None] - 2 * others[mine] @ others.T
            distance[np.arange(len(mine)), mine] = np.inf
            chosen = np.argpartition(distance, max(near - 1, 0), 1)[:, :near]
            rows = np.repeat(np.arange(len(mine)), near)
            mean = sparse.csr_array((np.full(rows.size, 1 / max(near, 1), np.float32), (rows, chosen.ravel())), shape=(len(mine), len(active)))
            found[start : start + _BLOCK] = self.own * others[mine] + (1 - self.own) * (mean @ others)
        return _with_popularity(found, orders)


PAPER = Tifu(within=0.9, across=0.7, groups=7, neighbours=300, own=0.7)


def _with_popularity(scores: np.ndarray, orders: Orders) -> np.ndarray:
    """The scores plus popularity, scaled so that it decides only among equal ones (and those less than 1e-6 apart)."""
    counts = np.asarray(frequencies(orders.past).sum(0), np.float32)
    return scores + 1e-6 * counts / max(counts.max(), 1)


def recall(scores: np.ndarray, truth: list[np.ndarray], k: int = 20) -> float:
    """Mean over the shoppers [N, I] of |top k and truth| / |truth|; equal scores go to the lower item number."""
    top = np.argsort(-scores, 1, kind="stable")[:, :k]
    return float(np.mean([np.isin(wanted, row).mean() for wanted, row in zip(truth, top, strict=True)]))


def evaluate(data: Interactions, k: int = 20) -> dict:
    """Recall@k on the first order in the last 8 weeks of every known shopper who ordered before, by each rule."""
    orders = next_orders(data, int(data.time.max()) + 1 - _TEST_SECONDS)
    rules = {"popular": popular, "personal": personal, "tifu_knn_paper": PAPER, "tifu_knn": Tifu()}
    return {
        "shoppers": len(orders.user),
        "items_an_order": float(np.mean([len(t) for t in orders.truth])),
        f"recall@{k}": {name: recall(rule(orders), orders.truth, k) for name, rule in rules.items()},
    }
