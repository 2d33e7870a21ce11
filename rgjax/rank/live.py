"""Shoppers whose events are read once: a new event changes its shopper's vector without training, and without reading the others again.

For every event of a shopper's window the keys and values of each layer are kept (2 x layers x window x heads x head width numbers: 410 KB at
the shape of configs/ml1m_behaviour.cfg), and a further event is computed against them, as a generator of text reads its prompt. Nothing is
approximated: vectors are those of `SequenceRecommender` for the whole history, up to float rounding.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.behaviour import events, histories, in_batches
from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.nn.attention import LayerCache
from rgjax.rank.sequence import SequenceRecommender

MANY = 16  # new events of one shopper from which all are read again at once, not one after the other


class LiveUsers:
    """The shoppers `users` (int [U], numbers in `recommender.found`), known by the events there and then by those that are appended.

    `vectors` float32 [U, D] are theirs now, zeros before a first event. `rows` are computed together. Where the window is full the last `kept`
    events (0: as many as the window holds) are read again: with the oldest event gone every other one stands at another position, and what
    deeper layers made of it had read the one that is gone. With `kept` below the window the next window - kept events are cheap again, but
    until then the model reads fewer events than it could.
    """

    def __init__(self, recommender: SequenceRecommender, users: np.ndarray, rows: int = 32, kept: int = 0):
        found, config = recommender.found, recommender.factory.config
        if not 0 <= kept <= recommender.window:
            raise UserError(f"kept={kept} has to be between 1 and the window of {recommender.window} events, or 0 for all of it.")
        self.recommender, self.rows, self.kept = recommender, rows, kept or recommender.window
        self.vectors = np.zeros((len(users), config.width), np.float32)
        self._events = {name: values for name, values in histories(found, users, recommender.window).items() if name in self._names}
        ends, sizes = found.data.offsets[users + 1], np.diff(found.data.offsets)[users]
        self._count = np.minimum(sizes, recommender.window)
        self._time = np.where(sizes > 0, found.data.time[np.maximum(ends - 1, 0)], np.nan)
        heads = config.heads if config.block == "pointwise" else config.kv_heads or config.heads
        shape = (len(users), recommender.window, heads, config.head_dim or config.width // config.heads)
        zeros = lambda: jnp.zeros(shape, config.dtype)
        self._caches = [LayerCache(zeros(), zeros()) for _ in range(config.layers)]
        self._read(np.flatnonzero(self._count), whole=True)

    @property
    def _names(self) -> tuple[str, ...]:
        found = self.recommender.found
        return ("tokens", *found.features, *(() if found.vectors is None else ("vector",)))

    def append(self, new: Interactions) -> np.ndarray:
        """Reads the events `new`, of the same catalogue, whose `user` are places in `users`; returns the places int [B] that have some.

        Raises UserError at a place or item that is not there, and at an event earlier than one that its shopper is known by.
        """
        places, found = np.unique(new.user), self.recommender.found
        if len(places) and (places[-1] >= len(self._count) or new.item.max() >= len(found.data.items)):
            raise UserError(f"The events are of {len(self._count)} shoppers and {len(found.data.items)} items at most; open them anew for others.")
        if len(early := places[new.time[new.offsets[places]] < self._time[places]]):
            raise UserError(f"An event of shopper {early[0]} is earlier than one known already; append events in order of time, or open anew.")
        arrays = events(new, self._names, found.vectors, self._time).rows(slice(None))
        self._time[places] = new.time[new.offsets[places + 1] - 1]
        sizes = np.diff(new.offsets)[places]
        again = (self._count[places] + sizes > self.recommender.window) | (sizes > MANY)
        for step in range(sizes[~again].max(initial=0)):
            now = places[~again & (sizes > step)]
            for name, values in self._events.items():
                values[now, self._count[now]] = arrays[name][new.offsets[now] + step]
            self._count[now] += 1
            self._read(now, whole=False)
        for place in places[again]:
            self._refill(place, {name: arrays[name][new.offsets[place] : new.offsets[place + 1]] for name in self._events})
        self._read(places[again], whole=True)
        return places

    def _refill(self, place: int, added: dict[str, np.ndarray]) -> None:
        """A shopper's events with those `added`: all, or the last ones where they no longer fit."""
        count, window = self._count[place], self.recommender.window
        total = count + len(added["tokens"])
        self._count[place] = total if total <= window else self.kept
        for name, values in self._events.items():
            joined = np.concatenate([values[place, :count], added[name]])[total - self._count[place] :]
            values[place] = 0
            values[place, : len(joined)] = joined

    def _read(self, places: np.ndarray, whole: bool) -> None:
        """Computes all events of some shoppers, or the last one against what is kept of those before, and puts away keys, values and vectors."""
        for part in in_batches(places, self.rows):
            last = self._count[part] - 1
            start, length = (0 * last, self.recommender.window) if whole else (last, 1)
            columns = start[:, None] + np.arange(length)
            batch = {name: values[part[:, None], columns] for name, values in self._events.items()} | {"positions": columns.astype(np.int32)}
            vectors, self._caches = _program(self.recommender.factory)(self.recommender.params, self._caches, batch, part, start, last - start)
            self.vectors[part] = vectors


@functools.lru_cache(maxsize=8)
def _program(factory: ModelFactory):
    """run(params, caches, events [B, T], places [B], first positions [B], places of the last events among T [B]) -> (vectors [B, D], caches)."""

    def run(params, caches, batch, rows_B, start_B, last_B):
        model, alone = factory.model(params), lambda tree: jax.tree.map(lambda a: a[None], tree)

        def one(own, shopper, start):  # each writes at a place of their own
            hidden, own = model.decode(alone(shopper), alone(own), start)
            return hidden[0], jax.tree.map(lambda a: a[0], own)

        length = batch["positions"].shape[1]
        # Who is read whole needs nothing of what is kept; reading it all the same would make XLA copy everybody's.
        before = lambda a: a[rows_B] if length < a.shape[1] else jnp.zeros((len(rows_B), *a.shape[1:]), a.dtype)
        hidden_BTD, own = jax.vmap(one)(jax.tree.map(before, caches), batch, start_B)
        vectors = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0].astype(jnp.float32)
        columns_BT = start_B[:, None] + jnp.arange(length)
        put = lambda a, new: a.at[rows_B[:, None], columns_BT].set(jnp.take_along_axis(new, columns_BT[:, :, None, None], axis=1))
        return vectors, jax.tree.map(put, caches, own)

    return jax.jit(run, donate_argnums=1)
