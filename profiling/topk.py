"""The best k of a large catalogue for many users: rgjax.rank.topk beside numpy, without the matrix of all scores on either side.

    python -m profiling.topk                              (10,000 users, 1,000,000 items, width 64, k = 100)
    python -m profiling.topk --users=500 --items=50000

Both sides multiply float32 vectors of users and items in chunks. The peer takes the best k of each block of items by numpy.argpartition,
merges them with the best so far by another, and sorts at the end. Both must find the same items, but for scores within rounding of
each other, before anything is told. Peak memory is that of a process of its own each, vectors included, above what libraries take.
--seen drawn items of each user are left out on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from launch import app
from profiling import bench
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("users", 10_000, "Users U.", lower_bound=1)
flags.DEFINE_integer("items", 1_000_000, "Items I.", lower_bound=1)
flags.DEFINE_integer("width", 64, "Width D of the vectors.", lower_bound=1)
flags.DEFINE_integer("k", 100, "Items recommended to a user.", lower_bound=1)
flags.DEFINE_integer("seen", 0, "Items of each user that are left out.", lower_bound=0)
flags.DEFINE_enum("memory_of", "", ["", "ours", "peer"], "Measure the peak memory of this side only (what the program asks of itself).")

OURS, PEER = "ours", "peer"
USERS, ITEMS = 256, 131_072  # of the peer's blocks: with 1,000,000 items on two cores the fastest of 131,072, 262,144, 524,288 and all
TOLERANCE = 1e-4  # absolute, of scores of standard deviation 8: float32 sums in another order


def inputs() -> tuple[np.ndarray, np.ndarray, sparse.csr_array | None]:
    """Vectors [U, D] and [I, D] of normal numbers, and what is left out [U, I]: low item numbers more often."""
    f, rng = app.FLAGS, np.random.default_rng(0)
    users, items = rng.standard_normal((f.users, f.width), np.float32), rng.standard_normal((f.items, f.width), np.float32)
    if not f.seen:
        return users, items, None
    columns = (f.items * rng.random(f.users * f.seen) ** 3).astype(int)
    entries = (np.ones(len(columns), np.float32), (np.repeat(np.arange(f.users), f.seen), columns))
    return users, items, sparse.csr_array(entries, shape=(f.users, f.items))


def in_numpy(users: np.ndarray, items: np.ndarray, seen: sparse.csr_array | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(items, scores) [U, k], best first."""
    parts = [slice(s, s + USERS) for s in range(0, len(users), USERS)]
    found = [_of_users(users[part], items, seen[part].tocsc() if seen is not None else None, k) for part in parts]
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _of_users(users: np.ndarray, items: np.ndarray, seen, k: int) -> tuple[np.ndarray, np.ndarray]:
    numbers, best = np.zeros((len(users), 0), np.int64), np.zeros((len(users), 0), np.float32)
    for start in range(0, len(items), ITEMS):
        scores = users @ items[start : start + ITEMS].T
        if seen is not None:
            own = seen[:, start : start + ITEMS].tocoo()
            scores[own.row, own.col] = -np.inf
        if scores.shape[1] > k:
            places = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
        else:
            places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        numbers = np.concatenate([numbers, places + start], axis=1)
        best = np.concatenate([best, np.take_along_axis(scores, places, axis=1)], axis=1)
        if best.shape[1] > k:
            kept = np.argpartition(best, best.shape[1] - k, axis=1)[:, -k:]
            numbers, best = np.take_along_axis(numbers, kept, axis=1), np.take_along_axis(best, kept, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(numbers, order, axis=1), np.take_along_axis(best, order, axis=1)


def in_jax(users: np.ndarray, items: np.ndarray, seen: sparse.csr_array | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by rgjax.rank.topk."""
    from rgjax.rank import topk

    return tuple(topk.top_k(users, items, k, seen_UI=seen))


def make(side: str) -> Callable[[], tuple]:
    """The call of a side, with data of its own."""
    given, of = inputs(), in_jax if side == OURS else in_numpy
    return lambda: of(*given, app.FLAGS.k)


def check(ours: tuple, peer: tuple) -> int:
    """How many places hold another item; raises UserError unless those have scores within rounding of each other."""
    if np.abs(ours[1] - peer[1]).max() > TOLERANCE:
        raise UserError("The sides do not find the same: scores of a place differ by more than rounding; no times are told.")
    ordered = np.sort(ours[0], axis=1), np.sort(peer[0], axis=1)
    for row in np.flatnonzero((ordered[0] != ordered[1]).any(axis=1)):
        alone = np.isin(ours[0][row], peer[0][row], invert=True)
        if (ours[1][row][alone] > ours[1][row][-1] + TOLERANCE).any():
            raise UserError(f"The sides do not find the same items for row {row}; no times are told.")
    return int((ours[0] != peer[0]).sum())


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    from profiling import resident

    f = app.FLAGS
    if f.k > f.items or f.seen > f.items - f.k:
        raise UserError(f"--k={f.k} and --seen={f.seen} together are more than --items={f.items}; lower them.")
    if f.memory_of:
        return {"peak_bytes": resident.peak(lambda: make(f.memory_of), calls=2 if f.memory_of == OURS else 1)}
    memory = {side: resident.in_process("profiling.topk", f"--memory_of={side}")["peak_bytes"] for side in (OURS, PEER)}
    given, results = inputs(), {}
    calls = {side: lambda side=side, of=of: results.__setitem__(side, of(*given, f.k)) for side, of in ((OURS, in_jax), (PEER, in_numpy))}
    found = bench.take_turns(calls, f.rounds)
    differing = check(results[OURS], results[PEER])
    for side in found:
        found[side]["peak_bytes"] = memory[side]
    found[OURS]["compiling_seconds"] = max(0.0, found[OURS]["compile_seconds"] - found[OURS]["seconds"])
    print(bench.table(found, f.users, "users"))
    print(f"ours: {found[OURS]['compiling_seconds']:.1f} s of the first call beyond the median, which is compilation")
    for side in found:
        print(f"{side}: {memory[side] / 1e6:,.0f} MB at most")
    shape = {name: getattr(f, name) for name in ("users", "items", "width", "k", "seen")}
    told = bench.summary(found, PEER, shape=shape, places_with_another_item=differing)
    return told | {"versions": bench.versions("jaxlib", "numpy", "scipy")}


if __name__ == "__main__":
    app.run(main, __doc__)
