"""What saving costs a run: steps with a checkpoint every --save_every, without any, and torch.save of the same state.

    python -m profiling.checkpoint
    python -m profiling.checkpoint --rows=16              (the batch of profiling.train_step: minutes a round on a CPU)

The state is that of training a GPT-2 of the flags' shape: parameters and AdamW's two moments. Ours saves as launch.train does, in the
background while the steps go on. A window is --save_every steps; one with a save begins with it, and a round has one window of either kind and a
torch.save, in turn, after which what was being written is waited for, untimed, so that no window pays for another. `overhead` is the time
of a window with a save over one without, less 1; it should stay below 5 %. The peer blocks while it writes, so its overhead is its
seconds over a window's. Neither side waits for the disk (fsync) while it is timed. Needs torch.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
import statistics
import tempfile
import time

import numpy as np

from launch import app
from profiling import bench, sides

flags = app.flags
flags.DEFINE_integer("rows", 4, "Rows of the batch.", lower_bound=1)
flags.DEFINE_integer("length", 128, "Tokens of a row.", lower_bound=8)
flags.DEFINE_integer("save_every", 100, "Steps of a window, which has one save.", lower_bound=1)
flags.DEFINE_string("folder", "", "Where checkpoints are written; empty takes a temporary folder.")

SAVING, WITHOUT, PEER = "window with a save", "window without", "torch.save"
REQUIRED = 0.05  # most overhead of a save


class Windows:
    """Steps with and without saves of one training state; `blocked` are the seconds until each save returned."""

    def __init__(self, place: pathlib.Path):
        from rgjax.data.streams import Streams
        from rgjax.train.checkpoint import Checkpoints

        f = app.FLAGS
        sides.write(place / "model")
        self.training = sides.OurTraining(place / "model")
        tokens = np.random.default_rng(0).integers(0, f.vocab_size, (f.rows, f.length), dtype=np.int32)
        self.batch, self.folder = sides.placed(bench.arrays(tokens)), place / "checkpoints"
        self.checkpoints = Checkpoints(self.folder, keep=2)
        self.nothing = Streams({}, 0, 1)  # no data is read here, and no position saved
        self.step, self.blocked = 0, []

    def plain(self) -> None:
        """A window without a save."""
        for _ in range(app.FLAGS.save_every):
            bench.wait(self.training(self.batch))
        self.step += app.FLAGS.save_every

    def saving(self) -> None:
        """A window that begins with a save, as launch.train makes it."""
        began = time.perf_counter()
        self.checkpoints.save(self.step, self.training.state, self.nothing, {}, None)
        self.blocked.append(time.perf_counter() - began)
        self.plain()

    def size(self) -> int:
        """Bytes of the newest checkpoint."""
        return sum(p.stat().st_size for p in (self.folder / str(self.checkpoints.latest)).rglob("*") if p.is_file())


def torch_save(state, file: pathlib.Path):
    """A call that writes the arrays of `state` as torch tensors, where JAX has them, into a file."""
    import jax
    import torch

    tensors = [torch.from_numpy(np.array(leaf)).to(bench.torch_device()) for leaf in jax.tree.leaves(state)]
    return functools.partial(torch.save, tensors, file)


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need()
    f, place = app.FLAGS, pathlib.Path(tempfile.mkdtemp(dir=app.FLAGS.folder or None))
    try:
        windows = Windows(place)
        windows.plain()  # compiles
        calls = {SAVING: windows.saving, WITHOUT: windows.plain, PEER: torch_save(windows.training.state, place / "state.pt")}
        found = bench.take_turns(calls, f.rounds, after=lambda _: windows.checkpoints.wait())
        sizes = {"ours": windows.size(), "peer": (place / "state.pt").stat().st_size}
        windows.checkpoints.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return told(found, windows, sizes)


def told(found: dict[str, dict], windows: Windows, sizes: dict[str, int]) -> dict:
    """Prints the figures, and returns the last line."""
    window, saving, peer = (found[name]["rounds"] for name in (WITHOUT, SAVING, PEER))
    blocked = windows.blocked[1:]  # the first is of the warm-up
    over = {"ours": bench.ratio(window, saving), "peer": bench.ratio(window, [a + b for a, b in zip(window, peer, strict=True)])}
    over = {name: {k: v - 1 for k, v in r.items()} for name, r in over.items()}
    sides_told = {"ours": {"blocked_seconds": statistics.median(blocked)}, "peer": {"blocked_seconds": found[PEER]["seconds"]}}
    for name, side in sides_told.items():
        side |= {"overhead": over[name], "bytes": sizes[name]}
        share = f"{over[name]['median']:.2%} ({over[name]['lowest']:.2%} to {over[name]['highest']:.2%})"
        blocks = f"blocked {side['blocked_seconds']:.3f} s, {side['bytes'] / 1e6:,.1f} MB"
        print(f"{name:<5} {blocks}; overhead of a save in {app.FLAGS.save_every} steps {share}")
    ratio = bench.ratio(blocked, peer)
    print(f"a window without a save {found[WITHOUT]['seconds']:.2f} s; torch.save blocks {bench.told(ratio)} times as long as ours")
    rounds = {name: f["rounds"] for name, f in found.items()} | {"ours, blocked": blocked}
    shape = sides.shape("rows", "length", "save_every")
    more = {"device": bench.device(), "versions": bench.versions("orbax-checkpoint"), "rounds": rounds, "shape": shape}
    return {**sides_told, "ratio": ratio, "required": REQUIRED, "enough": over["ours"]["median"] < REQUIRED, **more}


if __name__ == "__main__":
    app.run(main, __doc__)
