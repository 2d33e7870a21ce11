"""Sets of items as a model of bundles reads them: what a bundle holds, what its user had, and the user's other bundles.

Nothing of a row gives away the bundle it is about: what a user is known by there are events and train bundles other than that one.
"""

from __future__ import annotations

import collections
import functools

import grain
import numpy as np

from rgjax.config import BundleConfig, InputConfig
from rgjax.data.bundles import NOBODY, Bundles, without_bundles
from rgjax.data.interactions import Interactions
from rgjax.data.streams import READ, Indexed, Streams, deal

_MOST_ROWS = 200  # bundles and users that are read of those which hold an item


class BundleSets:
    """Rows about bundles of one shop; `queries` float32 [N, Z] are vectors of the bundles' intents."""

    def __init__(self, data: Interactions, bundles: Bundles, config: BundleConfig, queries: np.ndarray):
        self.bundles, self.config, self.queries = bundles, config, queries
        self.owners: list[list[int]] = [[] for _ in range(len(bundles))]
        train = set(bundles.of("train").tolist())
        self._own: dict[int, list[int]] = {}  # train bundles of a user
        for user, bundle in dict.fromkeys(map(tuple, bundles.pairs.tolist())):
            self.owners[bundle].append(user)
            if bundle in train:
                self._own.setdefault(user, []).append(bundle)
        self._seen = without_bundles(data.named(), bundles)
        # What is held together: the items of each train bundle, and those of each user.
        rows = {("bundle", b): bundles.members(b) for b in sorted(train)}
        rows |= {("user", u): np.unique(self._seen.history(u)) for u in np.unique(self._seen.user).tolist()}
        self._numbers, self._rows = {name: number for number, name in enumerate(rows)}, list(rows.values())
        self._lessened: dict[int, dict[int, np.ndarray]] = {}
        self._holders: dict[int, list[int]] = {}
        for number, items in enumerate(self._rows):
            for item in items.tolist():
                self._holders.setdefault(item, []).append(number)

    def owner(self, bundle: int) -> int:
        """The first of the users that a bundle belongs to, or NOBODY."""
        return self.owners[bundle][0] if self.owners[bundle] else NOBODY

    def others(self, user: int, bundle: int = -1) -> list[int]:
        """The train bundles of a user but `bundle`."""
        return [other for other in self._own.get(user, ()) if other != bundle]

    def items_of(self, user: int, bundle: int = -1) -> np.ndarray:
        """Items that a user had, ascending, without those that only `bundle` tells of."""
        if user == NOBODY:
            return np.zeros(0, np.int64)
        others = [self.bundles.members(other) for other in self.others(user, bundle)]
        told = np.unique(np.concatenate([np.zeros(0, np.int64), *others]))
        had = self._seen.history(user)
        if bundle >= 0:
            had = had[~np.isin(had, self.bundles.members(bundle))]
        return np.union1d(told, had)

    def beside(self, items: np.ndarray, bundle: int = -1) -> dict[int, float]:
        """What other bundles, and users, hold together with `items`: the sum over these of the cosine between two items, the largest being 1.

        Nothing that only `bundle` tells of counts.
        """
        rows, found = self._without(bundle), {}
        lost = collections.Counter(item for number, left in rows.items() for item in np.setdiff1d(self._rows[number], left).tolist())
        size = lambda item: len(self._holders[item]) - lost[item]
        for item in items.tolist():
            for number in self._holders.get(item, ())[:_MOST_ROWS]:
                others = rows.get(number, self._rows[number]).tolist()
                if number in rows and item not in others:
                    continue
                for other in others:
                    found[other] = found.get(other, 0.0) + (size(item) * size(other)) ** -0.5
        found = {item: weight for item, weight in found.items() if item not in items}
        most = max(found.values(), default=1.0)
        return {item: weight / most for item, weight in found.items()}

    def _without(self, bundle: int) -> dict[int, np.ndarray]:
        """What is left of the rows that tell of a bundle, by their numbers: nothing of its own, and of its users' what else tells of."""
        if bundle < 0:
            return {}
        if bundle not in self._lessened:
            rows = {self._numbers["user", u]: u for u in self.owners[bundle] if ("user", u) in self._numbers}
            left = {number: np.intersect1d(self._rows[number], self.items_of(user, bundle)) for number, user in rows.items()}
            if ("bundle", bundle) in self._numbers:
                left[self._numbers["bundle", bundle]] = np.zeros(0, int)
            self._lessened[bundle] = left
        return self._lessened[bundle]

    def row(self, items: np.ndarray, user: int, bundle: int = -1, query: np.ndarray | None = None, rng=None) -> dict[str, np.ndarray]:
        """The arrays of one set of items, for `user` (or NOBODY), who is not told of `bundle`.

        sets and encoder_segment_ids (1 = an item, 0 = padding) int32 [S, T]: the set itself, then the user's other bundles; own and
        own_segments [U]: what the user had; beside and beside_weights (float32) [W]: what other bundles hold with these items;
        segment_ids [1], which is 1: the one item asked for; users and bundles []; query float32 [Z]. What is too long is cut: at random with
        `rng`, else at its end.
        """
        c = self.config
        chosen = lambda found, most: np.asarray(found if len(found) <= most or rng is None else rng.choice(found, most, replace=False))[:most]
        others = [self.bundles.members(b) for b in chosen(self.others(user, bundle), c.user_bundles)]
        others += [np.zeros(0, int)] * (c.user_bundles - len(others))
        sets, segments = zip(*(_padded(chosen(found, c.set_length), c.set_length) for found in (items, *others)), strict=True)
        near = sorted(self.beside(items, bundle).items(), key=lambda pair: (-pair[1], pair[0]))[: c.beside]
        beside, weights = _padded(np.array([item for item, _ in near], int), c.beside)[0], np.zeros(c.beside, np.float32)
        weights[: len(near)] = [weight for _, weight in near]
        own, own_segments = _padded(chosen(self.items_of(user, bundle), c.user_length), c.user_length)
        return {
            "sets": np.stack(sets), "encoder_segment_ids": np.stack(segments), "own": own, "own_segments": own_segments,
            "beside": beside, "beside_weights": weights,
            "segment_ids": np.ones(1, np.int32), "users": np.int32(user), "bundles": np.int32(bundle),
            "query": np.zeros(self.queries.shape[1], np.float32) if query is None else query,
        }  # fmt: skip

    def example(self, bundle: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A training row: one item left out at random, for one of its users, or now and then for nobody, or told the intent.

        `targets` and `weights` are [].
        """
        c, members = self.config, self.bundles.members(bundle)
        target = rng.choice(members)
        told = rng.random() >= c.user_dropout and self.owners[bundle]
        user = int(rng.choice(self.owners[bundle])) if told else NOBODY
        query = self.queries[bundle] if rng.random() < c.intent_share else None
        return self.row(members[members != target], user, bundle, query, rng) | {"targets": np.int32(target), "weights": np.int32(1)}

    def train_batches(self, inputs: InputConfig, *, seed: int, process: int = 0, processes: int = 1) -> Streams:
        """Endless batches of this process's share of the train bundles; raises UserError when there are too few, or they can't be dealt."""
        index = self.bundles.of("train")

        def stream(number: int, total: int) -> grain.IterDataset:
            share = grain.MapDataset.source(Indexed("bundles", index)).seed(seed).shuffle().random_map(self._render).repeat()[number::total]
            return share.batch(inputs.batch_size // total, drop_remainder=True).to_iter_dataset(READ)

        return deal(stream, inputs, len(index), "train bundles", process, processes)

    def _render(self, bundle: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.example(int(bundle), rng)

    @functools.cached_property
    def told(self) -> np.ndarray:
        """bool [N]: whether anything is known of the bundle's (first) user beside it."""
        return np.array([len(self.items_of(self.owner(bundle), bundle)) > 0 for bundle in range(len(self.bundles))])


def _padded(items: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    tokens, segments = np.zeros(length, np.int32), np.zeros(length, np.int32)
    tokens[: len(items)], segments[: len(items)] = items, 1
    return tokens, segments
