"""Interactions -> batches of a behaviour model: windows of users' events, several users packed into a row.

A batch holds arrays [rows, T]: int32 `tokens` (item numbers), `targets` (the item that came next), `weights` (1 on events), `segment_ids`
(which window of the row; 0 = padding), `positions`, `users` (user numbers), int32 `event`, `rating`, `gap` and `price` where these are
read, and float32 `vector` [rows, T, Z].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from rgjax.config import MOST_PACKED, BehaviourConfig, InputConfig
from rgjax.config.behaviour import FEATURES
from rgjax.data.interactions import Interactions
from rgjax.data.pipeline import PACKING_BINS
from rgjax.data.streams import READ, Indexed, Streams, deal
from rgjax.errors import UserError

GAP_BUCKETS = 34  # 0 = unknown (a user's first event); powers of two of seconds
PRICE_BUCKETS = 26  # 0 = unknown; powers of two of a hundredth
RATING_BUCKETS = 12  # 0 = unknown; half steps from 0 to 5


def feature_names(config: BehaviourConfig) -> list[str]:
    """The names in --event_features; raises UserError for an unknown one."""
    names = [name.strip() for name in config.event_features.split(",") if name.strip()]
    if unknown := next((name for name in names if name not in FEATURES), None):
        raise UserError(f"--event_features={config.event_features} has '{unknown}'; use some of {', '.join(FEATURES)}.")
    if ("vector" in names) != bool(config.item_table):
        raise UserError("--event_features=vector and --item_table belong together; give both or neither.")
    return names


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """Interactions with the features of each event as numbers; `vectors` float32 [I, Z] are the items' where they are read."""

    data: Interactions
    features: dict[str, np.ndarray]  # int32 [E]
    vectors: np.ndarray | None = None

    def rows(self, chosen: slice | np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of some events."""
        item = self.data.item[chosen]
        found = {"tokens": item, "users": self.data.user[chosen]} | {name: values[chosen] for name, values in self.features.items()}
        return found if self.vectors is None else found | {"vector": self.vectors[item]}


def events(data: Interactions, names: Sequence[str], vectors: np.ndarray | None = None, since: np.ndarray | None = None) -> Events:
    """The events of `data` with the named features in buckets; `since` float64 [U] is when each user had an event before these, NaN for never."""
    made: dict[str, Callable[[], np.ndarray]] = {
        "event": lambda: data.event,
        "rating": lambda: np.where(np.isnan(data.rating), 0, 1 + np.clip(np.round(2 * np.nan_to_num(data.rating)), 0, RATING_BUCKETS - 2)),
        "gap": lambda: _gaps(data, np.full(len(data.users), np.nan) if since is None else since),
        "price": lambda: np.where(np.isnan(data.price), 0, 1 + _powers(100 * np.nan_to_num(data.price), PRICE_BUCKETS - 2)),
    }
    return Events(data, {name: made[name]().astype(np.int32) for name in names if name in made}, vectors if "vector" in names else None)


def _gaps(data: Interactions, since_U: np.ndarray) -> np.ndarray:
    first = data.offsets[:-1][np.diff(data.offsets) > 0]
    gaps = np.diff(data.time, prepend=data.time[:1]).astype(np.float64)
    gaps[first] = data.time[first] - since_U[data.user[first]]
    return np.where(np.isnan(gaps), 0, 1 + _powers(np.nan_to_num(gaps), GAP_BUCKETS - 2))


def _powers(values: np.ndarray, most: int) -> np.ndarray:
    return np.clip(np.floor(np.log2(1 + np.maximum(values, 0))), 0, most)


def windows(data: Interactions, length: int) -> np.ndarray:
    """int32 [N, 2]: (user, how many windows lie after this one) of users with two events or more; together they cover all events."""
    sizes = np.diff(data.offsets)
    counts = np.where(sizes >= 2, -(-(sizes - 1) // length), 0)
    user = np.repeat(np.arange(len(sizes)), counts)
    return np.stack([user, np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)], 1).astype(np.int32)


def window(found: Events, user: int, after: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A window of at most `length` events with their next items. The last one ends at the user's end, the others where the draw says."""
    start, end = found.data.offsets[user], found.data.offsets[user + 1] - 1  # the last event has no next one
    if after:
        end = max(start + min(length, end - start), end - after * length + rng.integers(-(length // 2), length // 2 + 1))
    chosen = slice(max(start, end - length), end)
    arrays = found.rows(chosen)
    return arrays | {"targets": found.data.item[chosen.start + 1 : end + 1], "weights": np.ones(end - chosen.start, np.int32)}


def train_batches(found: Events, config: BehaviourConfig, inputs: InputConfig, *, seed: int, process: int = 0, processes: int = 1) -> Streams:
    """Endless batches of this process's share of the rows; raises UserError when batch, streams and processes do not divide."""
    index, length = windows(found.data, config.window), max(inputs.row_length, config.window)

    def render(entry: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return window(found, int(entry[0]), int(entry[1]), config.window, rng)

    def stream(number: int, total: int) -> grain.IterDataset:
        share = grain.MapDataset.source(Indexed("windows", index)).seed(seed).shuffle().random_map(render).repeat()[number::total]
        if not inputs.packing:
            return share.map(lambda arrays: pad(arrays, length)).batch(inputs.batch_size // total, drop_remainder=True).to_iter_dataset(READ)
        lengths = dict.fromkeys(render(index[0], np.random.default_rng(0)), length)
        packed = grain.experimental.FirstFitPackIterDataset(
            share.to_iter_dataset(READ), length_struct=lengths, num_packing_bins=PACKING_BINS, seed=seed, shuffle_bins=True,
            max_sequences_per_bin=inputs.row_examples or MOST_PACKED,
        )  # fmt: skip
        return packed.map(_from_packed).batch(inputs.batch_size // total, drop_remainder=True)

    return deal(stream, inputs, len(index), "windows of two events or more", process, processes)


def _from_packed(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    own = {name: values for name, values in row.items() if not name.endswith(("_segment_ids", "_positions"))}
    return own | {"segment_ids": row["tokens_segment_ids"], "positions": row["tokens_positions"]}


def pad(arrays: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """One window as a row of its own."""
    count = len(arrays["tokens"])
    arrays = arrays | {"segment_ids": np.ones(count, np.int32), "positions": np.arange(count, dtype=np.int32)}
    return {name: np.pad(values, [(0, length - count)] + [(0, 0)] * (values.ndim - 1)) for name, values in arrays.items()}


def histories(found: Events, users: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """The last `length` events of each of `users` [B] as rows of a batch, without targets; the last event of a row is at its count - 1."""
    rows = []
    for user in users:
        start, end = found.data.offsets[user], found.data.offsets[user + 1]
        rows.append(pad(found.rows(slice(max(start, end - length), end)), length))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def in_batches(users: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """`users` in equal parts of `rows`, the last filled up with its own first."""
    for at in range(0, len(users), rows):
        part = users[at : at + rows]
        yield np.concatenate([part, np.repeat(part[:1], rows - len(part))])
