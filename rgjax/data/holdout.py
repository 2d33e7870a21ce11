"""What of a shop's events is trained on, and what is held out to measure by."""

from __future__ import annotations

import dataclasses

import numpy as np

from rgjax.config import ShopConfig
from rgjax.data.interactions import Interactions, before, last_out
from rgjax.data.splits import hash64
from rgjax.errors import UserError

WEEK = 7 * 24 * 3600


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """`seen` are the events known before; `items` int32 [U] the first item after them that is asked for, -1 where nobody asks.

    An item that its user had before is not asked for: it would not be recommended again.
    """

    seen: Interactions
    items: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """`train` has no event of cold users and none with cold items (bool [U] and [I])."""

    train: Interactions
    val: Held
    test: Held
    cold_users: np.ndarray
    cold_items: np.ndarray

    def warm(self, held: Held) -> np.ndarray:
        """`held.items` of known users and items only, -1 elsewhere."""
        known = (held.items >= 0) & ~self.cold_users & ~self.cold_items[np.maximum(held.items, 0)]
        return np.where(known, held.items, -1)


def split(data: Interactions, config: ShopConfig) -> Split:
    """By each user's last events, or by weeks from the last event on; raises UserError when nothing is left to train or to ask for.

    Cold users and items are chosen by the hash of their id, so that the same are cold in every run.
    """
    cold_users, cold_items = _share(data.users, config.cold_users), _share(data.items.ids, config.cold_items)
    if config.hold_out == "last":
        until_test, test = last_out(data, 1)
        until_val, val = last_out(data, 2)
    else:
        end = int(data.time.max()) + 1
        until_test, test = _next(data, end - config.hold_weeks * WEEK, end)
        until_val, val = _next(data, end - 2 * config.hold_weeks * WEEK, end - config.hold_weeks * WEEK)
    train = until_test if config.train_on_validation else until_val
    train = train.where(~cold_users[train.user] & ~cold_items[train.item])
    if not len(train) or not (test >= 0).any():
        raise UserError("Nothing is left to train on, or nothing to measure by; lower --hold_weeks, --cold_users or --cold_items.")
    return Split(train, Held(until_val, _new(until_val, val)), Held(until_test, _new(until_test, test)), cold_users, cold_items)


def _new(seen: Interactions, held_U: np.ndarray) -> np.ndarray:
    """`held_U` with -1 where the user had the item before."""
    again = seen.matrix[np.arange(len(held_U)), np.maximum(held_U, 0)] > 0
    return np.where(np.asarray(again).reshape(-1), -1, held_U).astype(np.int32)


def _next(data: Interactions, cut: int, end: int) -> tuple[Interactions, np.ndarray]:
    """(events before `cut`, the first item of each user from `cut` to `end`; -1 for users without events before or after)."""
    earlier, later = before(data, cut)
    later = later.where(later.time < end)
    held = np.full(len(data.users), -1, np.int32)
    users, first = np.unique(later.user, return_index=True)
    held[users] = later.item[first]
    return earlier, np.where(np.diff(earlier.offsets) > 0, held, -1)


def _share(ids, share: float) -> np.ndarray:
    if not share:
        return np.zeros(len(ids), bool)
    return np.array([hash64(f"cold {name}") / 2**64 < share for name in ids])
