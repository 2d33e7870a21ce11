"""What shoppers did with items, as columns: the data of every recommender."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """The items I: `ids` (unique), `titles` ('' where an item has no text), `attributes` (name -> text or list of texts)."""

    ids: Sequence[str]
    titles: Sequence[str]
    attributes: Sequence[dict]

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Item id -> number."""
        return {name: i for i, name in enumerate(self.ids)}


def attribute_values(attributes: dict, name: str) -> list[str]:
    """The values of one attribute as texts."""
    value = attributes.get(name)
    return [] if value is None else [str(v) for v in (value if isinstance(value, list) else [value])]


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """E events of U users with I items, sorted by user and within a user by time (events of one time keep their order).

    `user` and `item` int32 [E] are numbers into `users` and `items`; `time` int64 [E] is seconds, or a running number where the source
    has only an order; `event` int8 [E] is a number into `events`; `rating`, `price` and `quantity` float32 [E] are NaN where unknown.
    `profiles` has one dict of attributes per user. `triples` int32 [N, 3] are (head, relation, tail): entities below I are the items, the
    others and the relations are named by `entities` and `relations`. `basket` int32 [E] numbers the orders, or is empty where the source
    has none. A user called '' stands for all shoppers nobody knows: their events are demand, but no one's history (see `named`).
    """

    users: Sequence[str]
    items: Catalogue
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    event: np.ndarray
    rating: np.ndarray
    price: np.ndarray
    quantity: np.ndarray
    events: Sequence[str] = ("interaction",)
    profiles: Sequence[dict] = ()
    triples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    entities: Sequence[str] = ()  # of the numbers from I on
    relations: Sequence[str] = ()
    basket: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.user)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """int64 [U + 1]: the events of user u are offsets[u] : offsets[u + 1]."""
        return np.searchsorted(self.user, np.arange(len(self.users) + 1))

    def history(self, user: int) -> np.ndarray:
        """Item numbers of one user's events in order."""
        return self.item[self.offsets[user] : self.offsets[user + 1]]

    @functools.cached_property
    def matrix(self) -> sparse.csr_array:
        """float32 [U, I]: 1 where the user had to do with the item."""
        ones = np.ones(len(self), np.float32)
        found = sparse.csr_array((ones, (self.user, self.item)), shape=(len(self.users), len(self.items)))
        found.sum_duplicates()
        found.data[:] = 1.0
        return found

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """int64 [I]: events of each item."""
        return np.bincount(self.item, minlength=len(self.items))

    @functools.cached_property
    def facts(self) -> dict[int, frozenset[tuple[int, int]]]:
        """Head -> its (relation, tail) pairs, of the triples."""
        found: dict[int, set] = {}
        for head, relation, tail in self.triples.tolist():
            found.setdefault(head, set()).add((relation, tail))
        return {head: frozenset(pairs) for head, pairs in found.items()}

    def where(self, kept: np.ndarray) -> Interactions:
        """The events for which the bool array `kept` [E] holds; users and items keep their numbers."""
        names = ("user", "item", "time", "event", "rating", "price", "quantity")
        names += ("basket",) if len(self.basket) else ()
        return dataclasses.replace(self, **{name: getattr(self, name)[kept] for name in names})

    def renamed(self, users: Sequence[str]) -> Interactions:
        """The same events with other names (and, after their last, further names) for the users."""
        return dataclasses.replace(self, users=users, profiles=())

    def named(self) -> Interactions:
        """The events of known shoppers: all but those of user ''; users keep their numbers."""
        unknown = [u for u, name in enumerate(self.users) if name == ""]
        return self.where(~np.isin(self.user, unknown)) if unknown else self

    def fingerprint(self) -> str:
        """sha256 over users, items and events."""
        digest = hashlib.sha256()
        for name in ("user", "item", "time", "event", "rating", "price", "quantity", "triples", "basket"):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        for texts in (self.users, self.items.ids, self.items.titles, self.events):
            digest.update("\0".join(texts).encode())
        return digest.hexdigest()


def build(
    users: Sequence[str], items: Catalogue, user, item, time, *, event=None, rating=None, price=None, quantity=None, basket=None, **others
) -> Interactions:
    """Interactions from unsorted columns of numbers; what is not given is unknown (NaN), or event 0; raises UserError when there is none."""
    time = np.asarray(time, np.int64)
    order = np.lexsort((np.arange(len(time)), time, np.asarray(user)))
    column = lambda values, kind, empty: (np.full(len(time), empty, kind) if values is None else np.asarray(values, kind))[order]
    found = Interactions(
        users, items, column(user, np.int32, 0), column(item, np.int32, 0), time[order], column(event, np.int8, 0),
        column(rating, np.float32, np.nan), column(price, np.float32, np.nan), column(quantity, np.float32, np.nan),
        basket=np.zeros(0, np.int32) if basket is None else column(basket, np.int32, -1), **others,
    )  # fmt: skip
    if not len(found):
        raise UserError("The source holds no interaction; check --layout and --source.")
    return found


def last_out(data: Interactions, back: int = 1) -> tuple[Interactions, np.ndarray]:
    """(all but the last `back` events of each user, int32 [U]: the item of the first event left out, -1 for users with too few events).

    back=1 holds out the last event (test), back=2 the second-last (validation; the last is then in neither).
    A user with too few events is not scored and keeps the first at least: what back=1 asks for is in no train of back=2.
    """
    ends, sizes = data.offsets[1:], np.diff(data.offsets)
    scored = sizes > back
    held = np.where(scored, data.item[np.maximum(ends - back, 0)], -1).astype(np.int32)
    place = np.arange(len(data)) - data.offsets[data.user]
    return data.where(place < np.maximum(sizes - back, 1)[data.user]), held


def before(data: Interactions, cut: int) -> tuple[Interactions, Interactions]:
    """(the events earlier than time `cut`, the others): the global time split."""
    earlier = data.time < cut
    return data.where(earlier), data.where(~earlier)
