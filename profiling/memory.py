"""What a training step holds in memory, the largest batch that fits, and what recomputation buys.

    python -m profiling.memory --flagfile=configs/demo.cfg --dataset=DATASET [--memory=80]

Everything comes from compiling the step for this device and nothing is computed: parameters, optimizer state and batch from its arguments,
temporaries from XLA's plan of its buffers. Activations are those among them that JAX keeps from the forward pass for the backward pass;
XLA may keep less (it computes cheap ones again) and needs room for the rest: the two figures overlap. The largest batch, a multiple of what
--mesh and --accumulate divide, with rows of the longest shape, is found by compiling a few: guessed on a line and by halving what is left.
--memory is that of a device, in GiB; 0 takes what the device says, on CPU the machine's. FLOPs are of the compiled step, in those pieces
of the loss that the first batch needs.
"""

from __future__ import annotations

import dataclasses
import os

from launch import app
from profiling import footprint, workload
from profiling.workload import CONFIGS, Workload
from rgjax.config import ModelConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_float("memory", 0.0, "GiB of a device; 0 takes what this one has.", lower_bound=0.0)
flags.DEFINE_integer("vocab_size", 8000, "Tokens of the vocabulary, without --dataset.", lower_bound=8)
flags.DEFINE_integer("most_rows", 1 << 16, "Largest batch that is tried.", lower_bound=1)
flags.DEFINE_list("policies", "none,dots,full", "Choices of --remat to compare; empty compares none.")


def available() -> int:
    """Bytes of a device, or of the machine where the device does not say."""
    import jax

    if app.FLAGS.memory:
        return int(app.FLAGS.memory * 2**30)
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def policies(sections: dict) -> dict[str, dict]:
    """Of each choice of --remat: kept activations, temporaries, peak bytes a device and FLOPs of the step."""
    from profiling import costs
    from profiling.program import Program

    found = {}
    for name in app.FLAGS.policies:
        work = with_remat(sections, name)
        compiled = work.compiled()
        flops = sum(c.flops for c in costs.by_module(Program.of(compiled, work.pieces())).values())
        found[name] = {"activations": footprint.activations(work), **workload.memory_of(compiled), "flops": flops}
    return found


def with_remat(sections: dict, name: str) -> Workload:
    """The workload under another --remat."""
    return Workload.open(sections | {"model": dataclasses.replace(sections["model"], remat=name)}, app.FLAGS.vocab_size)


def table(own: dict, memory: dict, found: dict[str, dict]) -> str:
    """The figures as text."""
    lines = ["MiB a device"]
    lines += [f"  {name:<14} {size / 2**20:>12,.2f}" for name, size in (own | memory).items()]
    if found:
        lines += ["", f"{'--remat':<9} {'activations MiB':>16} {'temporaries MiB':>16} {'peak MiB':>12} {'GFLOP/step':>12}   beside none"]
    base = found.get("none")
    for name, f in found.items():
        sizes = f"{f['activations'] / 2**20:>16,.2f} {f['temporaries'] / 2**20:>16,.2f} {f['peak'] / 2**20:>12,.2f} {f['flops'] / 1e9:>12,.3f}"
        beside = f"{f['temporaries'] / base['temporaries'] - 1:+.1%} temporaries, {f['flops'] / base['flops'] - 1:+.1%} FLOPs" if base else ""
        lines.append(f"{name:<9} {sizes}   {beside if name != 'none' else ''}")
    return "\n".join(lines)


def main() -> dict:
    """Compiles, prints tables and returns the summary that is printed last."""
    sections = workload.sections()
    known = ModelConfig.__dataclass_fields__["remat"].metadata["choices"]
    if odd := next((name for name in app.FLAGS.policies if name not in known), None):
        raise UserError(f"--policies has '{odd}', which is no choice of --remat; use some of {', '.join(known)}.")
    work = Workload.open(sections, app.FLAGS.vocab_size)
    own, memory = footprint.parts(work), workload.memory_of(work.compiled())
    found = policies(sections)
    print(table(own, memory, found), flush=True)
    unit = work.mesh.shape["data"] * work.mesh.shape["fsdp"] * sections["optimizer"].accumulate
    limit = available()
    peak = lambda n: workload.memory_of(work.compiled(n))["peak"]
    rows, seen = footprint.largest(peak, unit, limit, app.FLAGS.most_rows, sections["input"].batch_size // unit)
    end = " (the most that is tried: --most_rows)" if rows + unit > app.FLAGS.most_rows else ""
    print(f"\nlargest --batch_size in {limit / 2**30:.2f} GiB: {rows}{end}" if rows else f"\nnot even {unit} rows fit {limit / 2**30:.2f} GiB")
    told = {"bytes": own | memory, "batch_size": sections["input"].batch_size, "largest_batch_size": rows, "limit": limit}
    return told | {"peak_by_rows": {str(n): seen[n] for n in sorted(seen)}, "remat": found} | workload.facts()


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
