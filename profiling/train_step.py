"""A whole training step beside that of transformers in torch, eager and compiled by torch.compile.

    python -m profiling.train_step                        (a GPT-2 of 35.6M parameters, 16 rows of 128 tokens, float32)
    python -m profiling.train_step --dtype=bfloat16
    python -m profiling.train_step --layers=24 --width=1024 --heads=16 --length=1024 --examples=4 --dtype=bfloat16  (packed)

Both sides begin with the same weights and read the same batch: causal language-model loss on every token, gradients clipped at a norm
of 1, AdamW with decay on matrices, no dropout. Ours is the step of launch.train. Losses over three steps must agree before anything
is timed; then the sides take turns, each with a step that is not timed before one that is. Peak memory is that of each side in a process
of its own. With --apart the sides take their turns in such processes, ours with large memory pages, as launch.train has them. A GPU may hold
only one of them: there one runs after the other, so that its rounds are no pairs, and the ratio is that of the medians. Needs torch and
transformers.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import sys
import tempfile

import numpy as np

from launch import app, pages
from profiling import bench, resident, sides
from profiling.elsewhere import Elsewhere, serve
from rgjax.errors import UserError, first_line

flags = app.flags
flags.DEFINE_integer("rows", 16, "Rows of the batch.", lower_bound=1)
flags.DEFINE_integer("length", 128, "Tokens of a row.", lower_bound=8)
flags.DEFINE_integer("examples", 1, "Examples of equal length packed in a row of ours; the peer reads each as a row of its own.", lower_bound=1)
flags.DEFINE_bool("eager_peer", True, "Also time the peer as it is, not compiled.")
flags.DEFINE_bool("compile_peer", True, "Also time the peer compiled by torch.compile, and compare with that.")
flags.DEFINE_bool("memory", True, "Also measure each side's peak memory, in a process of its own.")
flags.DEFINE_bool("apart", False, "Time each side in a process of its own, as its users start it; on a GPU one after the other.")
flags.DEFINE_string("side", "", "Only measures this side (used by the command itself).")
flags.DEFINE_bool("turns", False, "Only takes the turns of --side (used by the command itself).")
flags.DEFINE_string("weights", "", "Folder of the model that --side measures (used by the command itself).")

EAGER, COMPILED, STEPS_COMPARED = "peer, eager", "peer, compiled", 3
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # relative, of losses over three steps


def tokens() -> np.ndarray:
    """The batch [rows, length] int32."""
    f = app.FLAGS
    if f.length > f.max_positions:
        raise UserError(f"--length={f.length} exceeds --max_positions={f.max_positions}; raise it.")
    if f.length % f.examples:
        raise UserError(f"--length={f.length} is not a multiple of --examples={f.examples}; change one.")
    return np.random.default_rng(0).integers(0, f.vocab_size, (f.rows, f.length), dtype=np.int32)


def make(side: str, folder: pathlib.Path):
    """A call that takes one step of `side` and returns its loss."""
    if side == "ours":
        return functools.partial(sides.OurTraining(folder), sides.placed(bench.arrays(tokens(), app.FLAGS.examples)))
    import torch

    read = tokens().reshape(-1, app.FLAGS.length // app.FLAGS.examples)
    ids = torch.as_tensor(read, dtype=torch.long, device=bench.torch_device())
    return functools.partial(sides.peer_training(folder, side == COMPILED, dynamic=False), {"input_ids": ids, "labels": ids})


def compared(calls: dict) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(each side's losses over some steps, seconds of first steps); raises UserError unless the losses agree.

    A compiled peer that can't be compiled here is told and left out.
    """
    losses, first = {name: [] for name in calls}, {}
    for name, call in list(calls.items()):
        try:
            first[name] = bench.timed(lambda call=call, name=name: losses[name].append(float(call())))
            losses[name] += [float(call()) for _ in range(STEPS_COMPARED - 1)]
        except Exception as error:  # torch.compile raises many kinds: no compiler, no support of the device
            if name != COMPILED:
                raise
            print(f"note: torch.compile does not work here ({first_line(error)})", file=sys.stderr)
            del calls[name], losses[name]
    return agreeing(compared_with(losses)), first


def agreeing(losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each side's losses; raises UserError unless they agree."""
    for name, found in losses.items():
        if not np.allclose(found, losses["ours"], rtol=TOLERANCE[app.FLAGS.dtype]):
            raise UserError(f"The sides do not compute the same: the losses of {name} are {found}, ours {losses['ours']}; no times are told.")
    return losses


def in_order() -> bool:
    """Whether one side is timed after the other, for want of memory for both."""
    import jax

    return app.FLAGS.apart and jax.default_backend() == "gpu"


def alone(side: str, folder: pathlib.Path) -> dict:
    """What this process measures of one side: `losses` of the first steps, `first` and `rounds` in seconds, `peak_bytes`."""
    losses, times = [], []

    def made():
        call = make(side, folder)
        return lambda: times.append(bench.timed(lambda: losses.append(float(call()))))

    peak = resident.peak(made, STEPS_COMPARED + (app.FLAGS.rounds if in_order() else 0))
    return {"losses": losses[:STEPS_COMPARED], "first": times[0], "rounds": times[STEPS_COMPARED:], "peak_bytes": peak}


def own_flags(side: str, folder: str | pathlib.Path) -> tuple[str, ...]:
    """What a side's process is told beside this command's flags."""
    return f"--side={side}", f"--weights={folder}"


def environment(side: str) -> dict[str, str] | None:
    """That of a side's process; None is this one's."""
    return pages.environment() if side == "ours" else None


def in_processes(names: list[str], folder: str | pathlib.Path) -> dict[str, dict]:
    """`alone` of each side, in processes one after the other; a compiled peer that can't be compiled here is told and left out."""
    found = {}
    for name in names:
        try:
            found[name] = resident.in_process("profiling.train_step", *own_flags(name, folder), env=environment(name))
        except RuntimeError as error:
            if name != COMPILED:
                raise
            print(f"note: torch.compile does not work here ({(str(error).splitlines() or [''])[-1]})", file=sys.stderr)
            continue
        one = found[name]
        print(f"{name}: first step {one['first']:.1f} s, peak memory {one['peak_bytes'] / 1e6:,.0f} MB; losses {one['losses']}", file=sys.stderr)
    return compared_with(found)


def compared_with(sides_left: dict) -> dict:
    """Themselves; raises UserError where only ours is left."""
    if len(sides_left) == 1:
        raise UserError("torch.compile does not work here and --noeager_peer leaves nothing else to compare with; leave the flag out.")
    return sides_left


def turns(calls: dict) -> dict[str, dict]:
    """The times of these calls, in turn."""
    # Steps of a run follow each other; after the other side's turn the first may find that a machine's host took freed memory back.
    return bench.take_turns(calls, app.FLAGS.rounds, before=lambda name: bench.wait(calls[name]()))


def turns_elsewhere(names: list[str], folder: str | pathlib.Path) -> dict[str, dict]:
    """The times of these sides, in turn, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        opened = lambda name: Elsewhere("profiling.train_step", *own_flags(name, folder), "--turns", env=environment(name))
        return turns({name: stack.enter_context(opened(name)) for name in names})


def measured(names: list[str], folder: pathlib.Path) -> tuple[dict[str, dict], dict[str, list[float]], dict[str, int]]:
    """(times, losses, peak bytes; the last empty with --nomemory) of the sides."""
    if app.FLAGS.apart:
        each = in_processes(names, folder)
        losses, first = agreeing({name: one["losses"] for name, one in each.items()}), {name: one["first"] for name, one in each.items()}
        rounds = {name: {**bench.spread(one["rounds"]), "rounds": one["rounds"]} for name, one in each.items()} if in_order() else None
        found = rounds or turns_elsewhere(list(each), folder)
    else:
        calls = {name: make(name, folder) for name in names}
        losses, first = compared(calls)
        found = turns(calls)
        each = in_processes(list(calls), folder) if app.FLAGS.memory else {}
    found = {name: f | {"compile_seconds": first[name]} for name, f in found.items()}
    return found, losses, {name: one["peak_bytes"] for name, one in each.items()} if app.FLAGS.memory else {}


def utilisation(seconds: dict[str, float]) -> dict:
    """Each side's MFU, with what it is computed from."""
    from flax import nnx

    from rgjax.models.build import ModelFactory
    from rgjax.train import flops

    f, config = app.FLAGS, _config()
    counts = {"tokens": f.rows * f.length, "encoder_tokens": 0, "target_tokens": f.rows * (f.length - f.examples)}
    counts["examples"] = f.rows * f.examples
    params = nnx.to_pure_dict(ModelFactory(config, f.vocab_size).abstract)
    (peak, source), work = flops.peak_flops(1), flops.step_flops(config, params, f.vocab_size, counts)
    mfu = {name: work / (s * peak) for name, s in seconds.items()}
    formula = "MFU = FLOPs of a step / (seconds x peak), FLOPs = 3 x [2 x matrix parameters x tokens + 4 x width x attended keys x layers"
    formula += " + 2 x width x vocabulary x target tokens], the last layer only at target tokens (rgjax/train/flops.py)"
    return {"mfu": mfu, "formula": formula, "step_flops": work, "peak_flops": peak, "peak_source": source}


def _config():
    from rgjax.config import ModelConfig

    f = app.FLAGS
    return ModelConfig(
        layers=f.layers, width=f.width, heads=f.heads, positions="learned", norm="layernorm", bias=True, activation="gelu_new",
        max_positions=f.max_positions,
    )  # fmt: skip


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need()
    bench.same_precision()
    asked = [name for name, wanted in ((EAGER, app.FLAGS.eager_peer), (COMPILED, app.FLAGS.compile_peer)) if wanted]
    if not asked:
        raise UserError("--noeager_peer and --nocompile_peer leave nothing to compare with; give one of them only.")
    if app.FLAGS.turns:
        serve(make(app.FLAGS.side, app.FLAGS.weights))
        return {}
    if app.FLAGS.side:
        return alone(app.FLAGS.side, app.FLAGS.weights)
    with tempfile.TemporaryDirectory() as place:
        sides.write(place)
        found, losses, held = measured(["ours", *asked], place)
    used = utilisation({name: f["seconds"] for name, f in found.items()})
    for name in found:
        found[name] |= {"mfu": used["mfu"][name]} | ({"peak_bytes": held[name]} if held else {})
    work, peer = app.FLAGS.rows * app.FLAGS.length, list(found)[-1]
    paired = not in_order()
    print(bench.table(found, work, "tokens", paired))
    for name, f in found.items():
        print(f"{name}: MFU {f['mfu']:.1%}" + (f", peak memory {held[name] / 1e6:,.0f} MB" if held else ""))
    print(f"{used['formula']}; peak {used['peak_flops']:.3g} FLOP/s ({used['peak_source']})")
    used.pop("mfu")
    shape = sides.shape("rows", "length", "examples", "scan", "remat", "precision", "apart")
    return bench.summary(found, peer, paired, losses=losses, shape=shape, flops=used)


if __name__ == "__main__":
    app.run(main, __doc__)
