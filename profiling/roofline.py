"""What each module of the model computes and moves in a training step, against what this device can do.

    python -m profiling.roofline --flagfile=configs/demo.cfg --dataset=DATASET [--output=FOLDER]

FLOPs and bytes are read from the text of the compiled step: each operation is counted as often as loops run it and given to the module whose
Python call it came from, backward passes included (profiling/costs.py). The pieces of the loss that the first batch skips do not count;
in length buckets all batches looked at are of its shape.
The device's peak is its fastest of several large matrix products in --dtype, its bandwidth the fastest of several passes over a large
array, both measured at the start. A module's time is its share of the operations in a trace of three steps, times the step's own time;
the roof is the least that it could take. Arrays that fit a cache move faster than that bandwidth, so small models may exceed the roof.
"""

from __future__ import annotations

import pathlib
import tempfile
import time

from launch import app
from profiling import workload
from profiling.workload import CONFIGS, Workload

flags = app.flags
flags.DEFINE_string("output", "runs/profile", "Folder that roofline.svg is written into.")
flags.DEFINE_integer("size", 0, "Rows of the square matrices whose product is timed; 0 takes 2048 on CPU, else 8192.", lower_bound=0)

TRACED = range(3, 6)  # after the first steps


def fastest(call, rounds: int = 7) -> float:
    """Seconds of the fastest of several calls, the first (compiling) one apart."""
    import jax

    jax.block_until_ready(call())
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return min(found)


def device(dtype: str) -> tuple[float, float]:
    """(FLOP/s of a matrix product in `dtype`, bytes/s of reading and writing a large array), measured."""
    import jax
    import jax.numpy as jnp

    n = app.FLAGS.size or (2048 if jax.default_backend() == "cpu" else 8192)
    square, held = jnp.ones((n, n), dtype), [jnp.ones(1 << 26, jnp.float32)]
    product, shifted = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1, donate_argnums=0)

    def in_place():  # else the system's handing out of fresh memory is timed
        held[0] = shifted(held[0])
        return held[0]

    return 2 * n**3 / fastest(lambda: product(square)), 2 * held[0].nbytes / fastest(in_place)


def measured(work: Workload) -> tuple[str, dict[str, float], list[float]]:
    """(text of the program, share of the time by module, seconds of each traced step)."""
    from profiling import tracing, xplane
    from profiling.program import WITHIN, Program
    from rgjax.train import profile

    with tempfile.TemporaryDirectory() as folder:
        text = tracing.traced(work, TRACED, pathlib.Path(folder), alike=True)
        program = Program(text)
        waiting = [i.name for i in program if i.opcode in WITHIN and i.opcode != "fusion"]
        trace = xplane.read(xplane.newest(folder), profile.STEP, waiting)
    shares = tracing.shares(tracing.rows(trace, program), "module")
    return text, {name: share for (name,), share in shares.items()}, [seconds for _, seconds in trace.steps]


def row(cost, share: float, step: float, peak: float, bandwidth: float) -> dict:
    """A module's figures: what it costs, the `least` seconds under the roof and what bounds them, and the `seconds` it took."""
    compute, memory = cost.flops / peak, cost.bytes / bandwidth
    found = {"flops": cost.flops, "matrix_flops": cost.matrix, "bytes": cost.bytes, "intensity": cost.intensity}
    return found | {"bound": "compute" if compute > memory else "memory", "least": max(compute, memory), "seconds": share * step}


def table(rows: dict[str, dict], peak: float, bandwidth: float) -> str:
    """The modules' figures as text."""
    lines = [f"{'module':<20} {'GFLOP':>9} {'MB':>9} {'FLOP/byte':>10} {'bound by':>9} {'least ms':>9} {'took ms':>9} {'of roof':>8}"]
    for name, r in rows.items():
        sizes = f"{r['flops'] / 1e9:>9.3f} {r['bytes'] / 1e6:>9.1f} {r['intensity']:>10.2f} {r['bound']:>9}"
        of = f"{r['least'] / r['seconds']:>8.0%}" if r["seconds"] else f"{'-':>8}"
        lines.append(f"{name:<20} {sizes} {r['least'] * 1e3:>9.2f} {r['seconds'] * 1e3:>9.2f} {of}")
    sums = {key: sum(r[key] for r in rows.values()) for key in ("flops", "bytes", "least", "seconds")}
    sizes = f"{sums['flops'] / 1e9:>9.3f} {sums['bytes'] / 1e6:>9.1f} {sums['flops'] / sums['bytes']:>10.2f} {'':>9}"
    lines.append(f"{'step':<20} {sizes} {sums['least'] * 1e3:>9.2f} {sums['seconds'] * 1e3:>9.2f} {sums['least'] / sums['seconds']:>8.0%}")
    ridge = f"the roof bends at {peak / bandwidth:.1f} FLOP/byte"
    return "\n".join([*lines, f"device: {peak / 1e9:,.1f} GFLOP/s (matrix product), {bandwidth / 1e9:,.2f} GB/s (copy); {ridge}"])


def main() -> dict:
    """Measures, prints a table, writes the picture and returns the summary that is printed last."""
    sections = workload.sections()
    app.require(dataset=sections["input"].dataset, output=app.FLAGS.output)

    import statistics

    from profiling import costs, roofchart
    from profiling.program import Program
    from rgjax.train.workdir import replace_text

    work = Workload.open(sections)
    peak, bandwidth = device(sections["model"].dtype)
    text, shares, seconds = measured(work)
    step = statistics.median(seconds)
    modules = costs.by_module(Program(text, work.pieces()))
    rows = {name: row(cost, shares.get(name, 0.0), step, peak, bandwidth) for name, cost in modules.items()}
    print(table(rows, peak, bandwidth))
    folder = pathlib.Path(app.FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    points = [(name, r["intensity"], r["flops"] / r["seconds"]) for name, r in rows.items() if r["seconds"]]
    facts = workload.facts()
    replace_text(folder / "roofline.svg", roofchart.svg(f"Training step on {facts['device']}", peak, bandwidth, points))
    print(f"picture: {folder / 'roofline.svg'}")
    told = {"modules": rows, "peak_flops": peak, "bandwidth": bandwidth, "rounds": seconds, "picture": str(folder / "roofline.svg")}
    return told | facts


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
