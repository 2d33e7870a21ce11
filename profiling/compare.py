"""Two results of profiling commands side by side, with the ratio of what they share.

    python -m profiling.trace ... | tail -1 > A.json          (the last line of any profiling command; a file of its whole output will do)
    python -m profiling.compare A.json B.json

Where both hold the seconds of single rounds (lists called `rounds`), their medians are compared, with a 95 % interval of the ratio: both
sides' rounds are drawn again, apart from each other, --resamples times. An interval that holds 1 shows no difference. Rounds of one process
vary less than processes do, so a difference worth acting on is measured several times in turn. All other numbers were measured or
counted once; those that differ are listed with their ratio alone, the most different first.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from launch import app
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_multi_string("files", [], "The two results; they may stand alone.")
flags.DEFINE_integer("resamples", 10_000, "Bootstrap resamples.", lower_bound=100)
flags.DEFINE_integer("top", 40, "Single numbers shown.", lower_bound=1)

NAMES = ("name", "mesh", "operation", "kind", "axes", "layout", "workers")  # what tells the entries of a list apart
SAME = ("device", "versions", "assumed", "batch_size", "shape")  # what two results should agree on


def load(path: str) -> dict:
    """The last JSON object in a file; raises UserError where there is none."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    for part in (text, text.splitlines()[-1] if text else ""):
        try:
            found = json.loads(part)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise UserError(f"{path} does not end with a JSON object; give a file with the last line that a profiling command printed.")


def values(tree, path: str = "") -> Iterator[tuple[str, float | list[float]]]:
    """(path, number) of every number, and (path, numbers) of every list of rounds."""
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
    if number(tree):
        yield path, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from values(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, list) and "rounds" in path.split(".") and len(tree) > 1 and all(map(number, tree)):
        yield path, tree
    elif isinstance(tree, list):
        for k, value in enumerate(tree):
            named = " ".join(str(value[n]) for n in NAMES if n in value) if isinstance(value, dict) else ""
            yield from values(value, f"{path}[{named or k}]")


def medians(rounds: list[float], resamples: int, seed: int) -> np.ndarray:
    """Medians [resamples] of rounds drawn again with replacement."""
    from rgjax.metrics.bootstrap import resample_weights

    ordered, count = np.sort(np.asarray(rounds, float)), len(rounds)
    found = []
    for weights in resample_weights(count, resamples, seed):
        reached = np.cumsum(weights, axis=1)
        low, high = ((reached >= place).argmax(axis=1) for place in ((count + 1) // 2, count // 2 + 1))  # the same where the count is odd
        found.append((ordered[low] + ordered[high]) / 2)
    return np.concatenate(found)


def ratio(a: list[float], b: list[float], resamples: int) -> dict[str, float]:
    """Medians of both, and `ratio` b / a with its 95 % interval from `low` to `high`."""
    drawn = medians(b, resamples, 1) / medians(a, resamples, 0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    one, other = float(np.median(a)), float(np.median(b))
    return {"a": one, "b": other, "ratio": other / one, "low": float(low), "high": float(high)}


def compared(a: dict, b: dict, resamples: int) -> tuple[dict[str, dict], dict[str, dict]]:
    """(rounds, single numbers that differ) of what both results hold, by path."""
    mine, theirs = dict(values(a)), dict(values(b))
    rounds, single = {}, {}
    for path in mine:
        one, other = mine[path], theirs.get(path)
        if isinstance(one, list) and isinstance(other, list) and min(one) > 0 and min(other) > 0:
            rounds[path] = ratio(one, other, resamples)
        elif not isinstance(one, list) and not isinstance(other, list | None) and one != other:
            single[path] = {"a": one, "b": other, "ratio": other / one if one else None}
    distance = lambda item: -abs(math.log(item[1]["ratio"])) if (item[1]["ratio"] or 0) > 0 else -math.inf
    return rounds, dict(sorted(single.items(), key=distance))


def table(rounds: dict, single: dict, top: int) -> str:
    """The comparison as text."""
    lines = []
    if rounds:
        lines.append(f"{'rounds, medians':<44} {'A':>12} {'B':>12} {'B / A':>8}  95 % interval")
    for path, r in rounds.items():
        shown = "" if r["low"] <= 1 <= r["high"] else ("  slower" if r["ratio"] > 1 else "  faster")
        lines.append(f"{path[-44:]:<44} {r['a']:>12.6g} {r['b']:>12.6g} {r['ratio']:>8.3f}  [{r['low']:.3f}, {r['high']:.3f}]{shown}")
    if single:
        lines.append(f"{'single numbers':<44} {'A':>12} {'B':>12} {'B / A':>8}")
    for path, r in list(single.items())[:top]:
        lines.append(f"{path[-44:]:<44} {r['a']:>12.6g} {r['b']:>12.6g} " + (f"{r['ratio']:>8.3f}" if r["ratio"] is not None else f"{'-':>8}"))
    lines += [f"and {len(single) - top} more"] if len(single) > top else []
    return "\n".join(lines or ["nothing differs"])


def main() -> dict:
    """Reads both files, prints a table and returns the comparison, which is printed last."""
    files = app.FLAGS.files
    if len(files) != 2:
        raise UserError(f"{len(files)} results were given and two are compared; write profiling.compare A.json B.json.")
    a, b = map(load, files)
    rounds, single = compared(a, b, app.FLAGS.resamples)
    if not set(dict(values(a))) & set(dict(values(b))):
        raise UserError(f"{files[0]} and {files[1]} share no figure; compare two results of the same command.")
    unlike = [name for name in SAME if a.get(name) != b.get(name)]
    print(table(rounds, single, app.FLAGS.top))
    for name in unlike:
        print(f"note: {name} is not the same: {json.dumps(a.get(name))} and {json.dumps(b.get(name))}")
    return {"a": files[0], "b": files[1], "rounds": rounds, "numbers": single, "unlike": unlike, "resamples": app.FLAGS.resamples}


if __name__ == "__main__":
    app.run(main, __doc__, positional="files")
