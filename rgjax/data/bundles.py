"""Bundles: sets of items that were bought or are sold together, with the need they serve (intent) where somebody wrote it down."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from rgjax.data.interactions import Interactions
from rgjax.data.splits import SPLITS, by_hash, hash64
from rgjax.errors import UserError

NOBODY = -1  # stands for a user where none is known
_SHARE = 0.1  # of the bundles in each of val and test


@dataclasses.dataclass(frozen=True, eq=False)
class Bundles:
    """N bundles of the I items of a catalogue.

    `items` float32 csr [N, I] has ones; `intents` has one text per bundle, '' where nobody wrote one. `pairs` int32 [P, 2] are
    (user, bundle) and `time` int64 [P] says when, in seconds (0 where unknown).
    """

    ids: Sequence[str]
    items: sparse.csr_array
    intents: Sequence[str]
    pairs: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int32))
    time: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def members(self, bundle: int) -> np.ndarray:
        """Item numbers of one bundle, ascending."""
        return self.items.indices[self.items.indptr[bundle] : self.items.indptr[bundle + 1]]

    @functools.cached_property
    def splits(self) -> np.ndarray:
        """int8 [N]: the number of each bundle's split in ('train', 'val', 'test'), 80/10/10 by hash of its id alone."""
        return np.array([SPLITS.index(by_hash(name, _SHARE, _SHARE)) for name in self.ids], np.int8)

    def of(self, split: str) -> np.ndarray:
        """Numbers of the bundles of 'train', 'val' or 'test', ascending."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def fingerprint(self) -> str:
        """sha256 over ids, items, intents and pairs."""
        digest = hashlib.sha256()
        for array in (self.items.indptr.astype(np.int64), self.items.indices.astype(np.int32), self.pairs, self.time):
            digest.update(np.ascontiguousarray(array).tobytes())
        for texts in (self.ids, self.intents):
            digest.update("\0".join(texts).encode())
        return digest.hexdigest()


def build(
    ids: Sequence[str], bundle: np.ndarray, item: np.ndarray, items: int, intents: Sequence[str] = (), pairs=None, time=None
) -> Bundles:
    """Bundles from rows (bundle number, item number), of which equal ones count once; `items` is the size of the catalogue.

    Raises UserError when a bundle holds fewer than two items: nothing could be left out of it and found again.
    """
    ones = np.ones(len(bundle), np.float32)
    found = sparse.csr_array((ones, (np.asarray(bundle, int), np.asarray(item, int))), shape=(len(ids), items))
    found.sum_duplicates()
    found.data[:] = 1.0
    sizes = np.diff(found.indptr)
    if (sizes < 2).any():
        lone = int(np.argmax(sizes < 2))
        raise UserError(f"Bundle '{ids[lone]}' holds {sizes[lone]} different item(s) where two are the least; add one or leave the bundle out.")
    pairs = np.zeros((0, 2), np.int32) if pairs is None else np.asarray(pairs, np.int32).reshape(-1, 2)
    time = np.zeros(len(pairs), np.int64) if time is None else np.asarray(time, np.int64)
    cleaned = [" ".join(text.split()) for text in intents] or [""] * len(ids)
    return Bundles(list(ids), found, cleaned, pairs, time)


@dataclasses.dataclass(frozen=True)
class Case:
    """A bundle with one item held out: what is left of it is `context`, int [n - 1]."""

    bundle: int
    context: np.ndarray
    target: int


def completion_cases(bundles: Bundles, split: str = "test") -> list[Case]:
    """One case for every bundle of `split`; which item is held out is decided by hash of the bundle's id."""
    cases = []
    for bundle in bundles.of(split):
        members = bundles.members(bundle)
        place = hash64("held out:" + bundles.ids[bundle]) % len(members)
        cases.append(Case(int(bundle), np.delete(members, place), int(members[place])))
    return cases


def without_bundles(data: Interactions, bundles: Bundles, split: str = "train") -> Interactions:
    """The interactions that no bundle outside `split` gives away.

    Some sources make their interactions out of the bundles, an event (user, item, time) for every item of each; those of a held-out
    bundle hold its answer. An event stays where a bundle of `split` explains it too, or where no bundle does. A bundle whose time is unknown
    explains the user's events of any time.
    """
    kept, hidden = set(), set()
    inside = bundles.splits == SPLITS.index(split)
    for (user, bundle), time in zip(bundles.pairs.tolist(), bundles.time.tolist(), strict=True):
        (kept if inside[bundle] else hidden).update((user, item, time) for item in bundles.members(bundle).tolist())
    found = np.ones(len(data), bool)
    for n, (user, item, time) in enumerate(zip(data.user.tolist(), data.item.tolist(), data.time.tolist(), strict=True)):
        either = {(user, item, time), (user, item, 0)}
        found[n] = not (either & hidden) or bool(either & kept)
    return data.where(found)


def beside_train(bundles: Bundles) -> np.ndarray:
    """bool [N]: whether a train bundle (another one) belongs to the same user at the same time, as where both come from one session."""
    inside, moments = bundles.splits == SPLITS.index("train"), {}
    rows = [(bundle, (user, time)) for (user, bundle), time in zip(bundles.pairs.tolist(), bundles.time.tolist(), strict=True)]
    for bundle, moment in rows:
        if inside[bundle]:
            moments.setdefault(moment, set()).add(bundle)
    found = np.zeros(len(bundles), bool)
    for bundle, moment in rows:
        found[bundle] |= bool(moments.get(moment, set()) - {bundle})
    return found
