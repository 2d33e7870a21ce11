"""The training step as a program: kept in a folder, compared with an earlier one, and watched for compilations and transfers.

    python -m profiling.hlo --flagfile=configs/demo.cfg --dataset=DATASET --output=BEFORE
    python -m profiling.hlo --flagfile=configs/demo.cfg --dataset=DATASET --output=AFTER --against=BEFORE     (did my change alter it?)

FOLDER gets lowered.mlir (StableHLO), compiled.hlo and costs.json (FLOPs, bytes and memory); with --against also difference.txt. Then
--watch steps of the run are taken on its own batches: a compilation after the first is told with the arguments whose shape, type or
sharding changed (a new length bucket compiles once), and under JAX's transfer guard every transfer from or to the host that nobody asked for.
On CPU arrays already lie in the host's memory, so what a step would read back from a device shows on accelerators only.
"""

from __future__ import annotations

import itertools
import json
import pathlib

from launch import app
from profiling import workload
from profiling.workload import CONFIGS, Workload
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_string("output", "runs/profile/hlo", "Folder to write.")
flags.DEFINE_string("against", "", "Folder that an earlier call wrote, to compare with.")
flags.DEFINE_integer("watch", 4, "Steps to take and watch; 0 takes none.", lower_bound=0)
flags.DEFINE_integer("top", 12, "Changed operations shown.", lower_bound=1)

FILES = {"lowered": "lowered.mlir", "compiled": "compiled.hlo"}
COSTS = "costs.json"


def read(folder: str) -> tuple[dict[str, str], dict]:
    """(the programs' texts, their costs) of a dump; raises UserError when the folder holds none."""
    place = pathlib.Path(folder)
    try:
        return {name: (place / file).read_text() for name, file in FILES.items()}, json.loads((place / COSTS).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(f"--against={folder} holds no dump of profiling.hlo ({', '.join([*FILES.values(), COSTS])}); make one first.") from None


def dumped(work: Workload) -> tuple[dict[str, str], dict]:
    """(the programs' texts, their costs) of the step on the run's first batch."""
    from profiling import costs, difference
    from profiling.program import Program

    state, fixed, _ = work.abstract()
    lowered = work.step().lower(state, fixed, work.put(work.first))
    compiled = lowered.compile()
    text = compiled.as_text()
    program = Program(text, work.pieces())
    modules = costs.by_module(program)
    found = {"flops": sum(c.flops for c in modules.values()), "bytes": sum(c.bytes for c in modules.values())}
    found |= {"instructions": sum(difference.kinds(program).values()), **workload.memory_of(compiled)}
    return {"lowered": lowered.as_text(), "compiled": text}, found


def told(found: dict, before: dict, now: dict, top: int) -> str:
    """A comparison as text."""
    same = found["same"]
    lines = [f"{name} program: {'the same' if same[name] else 'different'}" for name in same]
    lines += [f"  {name:<14} {before.get(name, 0):>18,.0f} -> {now[name]:>18,.0f}" for name in now if before.get(name) != now[name]]
    for name in ("kinds", "operations"):
        shown = list(found[name].items())
        lines += [f"{name} that changed in number: {len(shown)}"] if shown else []
        lines += [f"  {a:>5} -> {b:<5} {text[:170]}" for text, (a, b) in shown[:top]]
        lines += [f"  and {len(shown) - top} more"] if len(shown) > top else []
    return "\n".join(lines)


def watched(work: Workload, count: int) -> dict:
    """Takes `count` of the run's steps and tells of compilations and transfers."""
    from profiling import watch

    stream = work.batches()
    batches = [work.put(batch) for batch in itertools.islice(stream, count)]
    stream.close()
    steps = list(watch.watched(work.step(), *work.begin(), batches))
    lines = watch.verdict(steps)
    print("\n".join(lines) or f"{count} steps watched: one compilation, no transfer that was not asked for")
    again = sum(bool(one["compiled"]) for one in steps[1:])
    return {"watched": count, "compiled_again": again, "transfers": sum(len(one["transfers"]) for one in steps), "findings": lines}


def main() -> dict:
    """Writes the dump, compares and watches, and returns the summary that is printed last."""
    sections, output, against = workload.sections(), app.FLAGS.output, app.FLAGS.against
    app.require(dataset=sections["input"].dataset, output=output)
    if against:
        app.check_apart(output, against)
    earlier = read(against) if against else None

    from profiling import difference
    from rgjax.train.workdir import replace_text

    work, folder = Workload.open(sections), pathlib.Path(output)
    texts, found = dumped(work)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        replace_text(folder / FILES[name], text)
    replace_text(folder / COSTS, json.dumps(found, indent=1) + "\n")
    print(f"{folder}: {', '.join([*FILES.values(), COSTS])}")
    summary: dict = {"output": output, "costs": found}
    if earlier:
        compared = difference.between(earlier[0], texts)
        replace_text(folder / "difference.txt", told(compared, earlier[1], found, 1 << 30) + "\n")
        print(told(compared, earlier[1], found, app.FLAGS.top))
        summary |= {"against": against, "same": compared["same"], "changed": {name: len(compared[name]) for name in ("kinds", "operations")}}
        summary["cost_changes"] = {name: [earlier[1].get(name), found[name]] for name in found if earlier[1].get(name) != found[name]}
    return summary | (watched(work, app.FLAGS.watch) if app.FLAGS.watch else {}) | workload.facts()


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
