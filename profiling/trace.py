"""Which operations a training step spends its time on: a profiler trace, and a table read from it.

    python -m profiling.trace --flagfile=configs/demo.cfg --dataset=DATASET [--profile_steps=3:5] [--output=FOLDER]
    python -m profiling.trace --read=W/profile            (the table of a trace that launch.train --profile_steps made)

Takes the run's own steps on its own batches, from the first on, with fresh weights; those of --profile_steps are traced, each waited for.
Every shape of batch is compiled before. FOLDER is for `tensorboard --logdir=FOLDER` (with its xprof plugin) or xprof; the table needs neither.
Times are those that operations took themselves: of a loop, its body counts. With several threads or devices they add up, so a step's
operations may take longer than the step. The module and source of an operation come from the compiled program, whose text lies beside
the trace as program.txt; for a run's own trace the program is compiled again, as the run describes it.
"""

from __future__ import annotations

import pathlib
import sys

from launch import app
from profiling import tracing, workload
from profiling.workload import CONFIGS, Workload
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_string("output", "runs/profile/trace", "Folder that the trace is written into.")
flags.DEFINE_string("read", "", "Folder of a trace to read instead of making one.")
flags.DEFINE_integer("top", 20, "Operations in the table.", lower_bound=1)

USUAL = "3:5"


def table(found: list[dict], steps: int, top: int) -> str:
    """Where the time goes by module, by source line and by operation; the latter a step on average."""
    lines = []
    if any(row["module"] for row in found):
        lines += ["share  module", *(f"{share:>6.1%} {name}" for (name,), share in tracing.shares(found, "module").items()), ""]
        sources = list(tracing.shares(found, "module", "source").items())[:top]
        lines += ["share  source", *(f"{share:>6.1%} {source} ({module})" for (module, source), share in sources), ""]
    lines.append(f"{'share':>6} {'ms/step':>9} {'runs/step':>9}  {'operation':<36} {'module':<20} source")
    for row in found[:top]:
        times = f"{row['share']:>6.1%} {row['seconds'] * 1e3 / steps:>9.3f} {row['runs'] / steps:>9.1f}"
        lines.append(f"{times}  {row['operation'][:36]:<36} {row['module']:<20} {row['source']}")
    rest = sum(row["share"] for row in found[top:])
    return "\n".join([*lines, f"{rest:>6.1%} {'':>9} {'':>9}  {max(0, len(found) - top)} others"])


def program_of(folder: pathlib.Path):
    """The program whose text lies beside a trace, or that of the run which the trace lies in; None where there is neither."""
    from profiling.program import Program
    from rgjax.train import workdir

    if (folder / tracing.PROGRAM).is_file():
        return Program((folder / tracing.PROGRAM).read_text())
    if not workdir.is_run(folder.parent):
        return None
    work = Workload.open(workdir.read(folder.parent))
    return Program.of(work.step().lower(*work.abstract()).compile())


def main() -> dict:
    """Makes or reads a trace, prints the table and returns the summary that is printed last."""
    from profiling import xplane
    from profiling.program import WITHIN
    from rgjax.train import profile

    folder = pathlib.Path(app.FLAGS.read or app.FLAGS.output)
    if not app.FLAGS.read:
        sections = workload.sections()
        app.require(dataset=sections["input"].dataset, output=app.FLAGS.output)
        chosen = profile.steps(sections["train"].profile_steps or USUAL)
        text = tracing.traced(Workload.open(sections), chosen, folder)
        (folder / tracing.PROGRAM).write_text(text)
    path, program = xplane.newest(folder), program_of(folder)
    waiting = [i.name for i in program if i.opcode in WITHIN and i.opcode != "fusion"] if program else []
    trace = xplane.read(path, profile.STEP, waiting)
    if not trace.operations:
        raise UserError(f"{path} holds no operations of a compiled program; trace at least one whole step.")
    if program and sum(o.name not in program.by_name for o in trace.operations) > len(trace.operations) / 20:
        print("note: the trace is of another program than the run describes, so modules and sources are left out", file=sys.stderr)
        program = None
    found, steps = tracing.rows(trace, program), max(1, len(trace.steps))
    print(table(found, steps, app.FLAGS.top))
    print(f"\n{len(trace.steps)} steps traced, operations on {trace.lines} threads or streams; {path}")
    told = {"trace": str(path), "steps": [n for n, _ in trace.steps], "operation_seconds_per_step": trace.seconds / steps, "lines": trace.lines}
    told |= {"rounds": [s for _, s in trace.steps]} if not app.FLAGS.read else {}  # a run's steps are not waited for: only their dispatch is timed
    told |= {"modules": {name: share for (name,), share in tracing.shares(found, "module").items()}}
    return told | {"operations": found[: app.FLAGS.top]} | workload.facts()


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
