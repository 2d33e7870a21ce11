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
from profiling import workload
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


def parts(work: Workload) -> dict[str, int]:
    """Bytes a device of the step's `parameters`, `optimizer` state, their `average`, the `batch` and `activations` (see above)."""
    import jax

    (state, fixed, batch), own = work.abstract(), lambda tree: sum(on_device(leaf) for leaf in jax.tree.leaves(tree))
    found = {"parameters": own(state.params) + own(fixed["weights"]), "optimizer": own(state.opt_state), "average": own(state.ema)}
    return found | {"batch": own(batch), "activations": activations(work)}


def on_device(leaf) -> int:
    """Bytes of an abstract array that one device holds."""
    import math

    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def activations(work: Workload) -> int:
    """Bytes a device that the forward pass of one micro-batch leaves for the backward pass, beside what the step is given."""
    import jax

    from rgjax.train.step import make_loss

    state, fixed, batch = work.abstract()
    first = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype, sharding=without_accumulation(s.sharding)), batch)
    loss = make_loss(work.factory, work.loss, work.tuning.penalty)

    def kept(params, fixed, batch, key):
        _, backward, _ = jax.vjp(lambda params: loss(params, fixed, batch, key), params, has_aux=True)
        return jax.tree.leaves(backward)

    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(kept).trace(state.params, fixed, first, key)
    given = set(map(id, traced.jaxpr.jaxpr.invars))
    placed = traced.lower().compile().output_shardings
    leaves = zip(traced.jaxpr.jaxpr.outvars, placed, strict=True)
    made = {id(v): (v.aval, s) for v, s in leaves if id(v) not in given and not hasattr(v, "val")}  # no literals
    return sum(on_device(jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=s)) for aval, s in made.values())


def without_accumulation(sharding):
    """The sharding of one micro-batch, from that of all."""
    import jax

    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec[1:]))


def largest(need, unit: int, limit: int, most: int, start: int = 1) -> tuple[int, dict[int, int]]:
    """(the largest multiple of `unit`, at most `most`, whose `need(rows)` is within `limit`, 0 if none; all needs that were looked at).

    `need` grows with the rows, nearly on a line: two of three guesses lie on it, through what was looked at last, the third in the
    middle of what is left. `start` units come first.
    """
    seen: dict[int, int] = {}
    low, high, guess = 0, most // unit + 1, min(max(1, start), most // unit)
    while high - low > 1:
        seen[guess] = need(guess * unit)
        low, high = (guess, high) if seen[guess] <= limit else (low, guess)
        if len(seen) < 2:
            guess = min(2 * guess, high - 1) if low else 1
        elif len(seen) % 3 == 1:
            guess = (low + high) // 2
        else:
            (a, need_a), (b, need_b) = list(seen.items())[-2:]
            guess = a + int((limit - need_a) * (b - a) / ((need_b - need_a) or 1))
        guess = min(max(guess, low + 1), high - 1)
    return low * unit, {units * unit: bytes_ for units, bytes_ in seen.items()}


def policies(sections: dict) -> dict[str, dict]:
    """Of each choice of --remat: kept activations, temporaries, peak bytes a device and FLOPs of the step."""
    from profiling import costs
    from profiling.program import Program

    found = {}
    for name in app.FLAGS.policies:
        work = with_remat(sections, name)
        compiled = work.compiled()
        flops = sum(c.flops for c in costs.by_module(Program.of(compiled, work.taken())).values())
        found[name] = {"activations": activations(work), **workload.memory_of(compiled), "flops": flops}
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
    own, memory = parts(work), workload.memory_of(work.compiled())
    found = policies(sections)
    print(table(own, memory, found), flush=True)
    unit = work.mesh.shape["data"] * work.mesh.shape["fsdp"] * sections["optimizer"].accumulate
    limit = available()
    peak = lambda n: workload.memory_of(work.compiled(n))["peak"]
    rows, seen = largest(peak, unit, limit, app.FLAGS.most_rows, sections["input"].batch_size // unit)
    end = " (the most that is tried: --most_rows)" if rows + unit > app.FLAGS.most_rows else ""
    print(f"\nlargest --batch_size in {limit / 2**30:.2f} GiB: {rows}{end}" if rows else f"\nnot even {unit} rows fit {limit / 2**30:.2f} GiB")
    told = {"bytes": own | memory, "batch_size": sections["input"].batch_size, "largest_batch_size": rows, "limit": limit}
    return told | {"peak_by_rows": {str(n): seen[n] for n in sorted(seen)}, "remat": found} | workload.facts()


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
