"""A run's own steps under the profiler, and the operations of the trace by module and source."""

from __future__ import annotations

import itertools
import pathlib
import sys

from profiling.workload import Workload

PROGRAM = "program.txt"  # the compiled program, beside a trace


def traced(work: Workload, chosen: range, folder: pathlib.Path, alike: bool = False) -> str:
    """Takes the steps up to the last of `chosen`, tracing those; returns the text of the program of the traced batches' first shape.

    With `alike` only batches of the first one's shape are taken.
    """
    import jax

    from profiling import watch
    from rgjax.train import profile

    # A GPU's trace does not tell which operation a kernel is of that was launched as part of a graph.
    options = {"xla_gpu_enable_command_buffer": ""} if jax.default_backend() == "gpu" else None
    shape = lambda batch: tuple(leaf.shape for leaf in batch.values())
    stream, step, programs = work.batches(), work.step(), {}
    taken = (batch for batch in stream if not alike or shape(batch) == shape(work.first))
    batches = [work.put(batch) for batch in itertools.islice(taken, chosen[-1])]
    stream.close()

    def program(*arguments):
        key = tuple(watch.signature(arguments).items())
        if key not in programs:
            programs[key] = step.lower(*arguments).compile(compiler_options=options)
        return programs[key]

    now, fixed = work.begin()
    for batch in 2 * list({shape(batch): batch for batch in batches}.values()):  # twice: a step may give the state back placed otherwise
        now, _ = program(now, fixed, batch)(now, fixed, batch)
    if len({shape(batch) for batch in batches[chosen[0] - 1 :]}) > 1:
        print("note: the traced batches are of several shapes; modules and sources are looked up in the program of the first", file=sys.stderr)
    trace = profile.Profile(chosen, folder, chosen[0] - 1, lambda text: None)  # all is compiled: no step has to be left out
    (now, fixed), used = work.begin(), {}
    for number, batch in enumerate(batches, 1):
        used[number] = program(now, fixed, batch)
        with trace.step(number, now):
            now, metrics = used[number](now, fixed, batch)
            jax.block_until_ready((now, metrics))
        trace.after(number, metrics)
    return used[chosen[0]].as_text()


def rows(trace, program) -> list[dict]:
    """Each operation with its share of all time, seconds and runs, and the module and source it has in the `program` (None: unknown)."""
    from profiling import costs

    known = program.by_name if program else {}
    found = []
    for o in trace.operations:
        i = known.get(o.name)
        where = {"module": costs.module(program, i), "source": costs.source(program, i)} if i else {"module": "", "source": ""}
        found.append({"operation": o.name, "share": o.seconds / trace.seconds, "seconds": o.seconds, "runs": o.runs} | where)
    return found


def shares(found: list[dict], *names: str) -> dict[tuple[str, ...], float]:
    """Share of the time of operations that agree in these columns, the largest first."""
    sums: dict[tuple[str, ...], float] = {}
    for row in found:
        key = tuple(row[name] or "unknown" for name in names)
        sums[key] = sums.get(key, 0.0) + row["share"]
    return dict(sorted(sums.items(), key=lambda item: -item[1]))
