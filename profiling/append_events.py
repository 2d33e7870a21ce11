"""A new event of known shoppers: appended to what is kept of theirs (rgjax.rank.live), beside reading their whole windows again.

    python -m profiling.append_events                          (MovieLens 1M's shape: 3,416 items, two layers of width 128, windows of 200)
    python -m profiling.append_events --known=50 --users=1

Weights are drawn, since times do not depend on them. --users shoppers are known by --known events each. A round appends --events further ones
to each, one after the other, as they come in in a shop; the other side reads the last events anew after each. Both give a vector after each
event, which must be the same but for rounding before anything is told. The rate is events a second.
"""

from __future__ import annotations

import numpy as np

from launch import app
from profiling import bench
from rgjax.config import BehaviourConfig, InputConfig, ModelConfig, ShopConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("layers", 2, "Layers.", lower_bound=1)
flags.DEFINE_integer("width", 128, "Width.", lower_bound=8)
flags.DEFINE_integer("heads", 2, "Heads.", lower_bound=1)
flags.DEFINE_enum("block", "transformer", ["transformer", "pointwise"], "Kind of layer.")
flags.DEFINE_integer("window", 200, "Most events that are read.", lower_bound=2)
flags.DEFINE_integer("items", 3416, "Items.", lower_bound=2)
flags.DEFINE_integer("users", 32, "Shoppers who have an event at a time.", lower_bound=1)
flags.DEFINE_integer("known", 180, "Events of each before the first round.", lower_bound=1)
flags.DEFINE_integer("events", 2, "Further events of each in a round.", lower_bound=1)

APPEND, AGAIN = "ours", "read again"
TOLERANCE = 1e-4  # absolute, of vectors whose entries have standard deviation 1


def sides(total: int):
    """(append(n), read_again(n)): calls that give all users' vectors after their event number n < `total`."""
    import dataclasses

    import jax

    from rgjax.data.interactions import Catalogue, build
    from rgjax.rank.live import LiveUsers
    from rgjax.tasks.shop.behaviour import BehaviourTask

    f, rng = app.FLAGS, np.random.default_rng(0)
    user = np.repeat(np.arange(f.users), total)
    catalogue = Catalogue([str(i) for i in range(f.items)], [""] * f.items, [{}] * f.items)
    data = build([str(u) for u in range(f.users)], catalogue, user, rng.integers(f.items, size=len(user)), np.tile(np.arange(total), f.users))
    model = ModelConfig(layers=f.layers, width=f.width, heads=f.heads, block=f.block, dropout=0.0, max_positions=f.window)
    task = BehaviourTask(data, ShopConfig(), BehaviourConfig(window=f.window), InputConfig(), model)
    first = task.recommender(task.factory.fresh(jax.random.key(0)), data.where(data.time < f.known))
    first = dataclasses.replace(first, rows=f.users)
    live, everybody = LiveUsers(first, np.arange(f.users), rows=f.users), np.arange(f.users)

    def append(n: int) -> np.ndarray:
        live.append(data.where(data.time == n))
        return live.vectors.copy()

    def read_again(n: int) -> np.ndarray:
        known = dataclasses.replace(first, found=task.events(data.where(data.time <= n)))
        known.__dict__["_vectors"] = first._vectors  # compiled once
        return known.user_vectors(everybody)

    return append, read_again


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    f = app.FLAGS
    total = f.known + f.events * (f.rounds + 1)  # the first call compiles, and is a round of its own
    if total > f.window:
        raise UserError(f"--known={f.known} and {f.rounds + 1} times --events={f.events} exceed --window={f.window}: lower one of them.")
    results, calls = {APPEND: [], AGAIN: []}, {}
    for name, side in zip(results, sides(total), strict=True):

        def call(name=name, side=side):
            begin = f.known + len(results[name])
            results[name] += [side(n) for n in range(begin, begin + f.events)]

        calls[name] = call
    found = bench.take_turns(calls, f.rounds)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(*results.values(), strict=True))
    if worst > TOLERANCE:
        raise UserError(f"The sides do not find the same: vectors differ by {worst:.1e}; no times are told.")
    print(bench.table(found, f.users * f.events, "events"))
    print(f"vectors differ by at most {worst:.1e}")
    shape = {name: getattr(f, name) for name in ("layers", "width", "heads", "block", "window", "items", "users", "known", "events")}
    return bench.summary(found, AGAIN, shape=shape, largest_difference=worst)


if __name__ == "__main__":
    app.run(main, __doc__)
