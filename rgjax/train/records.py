"""What a run writes down: metrics.jsonl, TensorBoard and the screen."""

from __future__ import annotations

import json
import logging
import math
import os
import pathlib
import resource

import jax
from rich.console import Console


class RunLog:
    """Appends metrics of one run. Only process 0 writes; the others keep silent."""

    def __init__(self, workdir: str | pathlib.Path, steps: int, resumed_at: int):
        self.workdir, self.steps = pathlib.Path(workdir), steps
        self.active = jax.process_index() == 0
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        if not self.active:
            return
        for name in ("metrics.jsonl", "samples.jsonl"):
            _cut(self.workdir / name, resumed_at)
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        from tensorboard.summary import Writer  # slow to import, wanted by training only

        # Event files can't be cut, so TensorBoard is told again what metrics.jsonl still holds.
        for stale in (self.workdir / "tensorboard").glob("events.out.tfevents*"):
            stale.unlink()
        self._board = Writer(str(self.workdir / "tensorboard"))
        if (self.workdir / "metrics.jsonl").exists():
            for line in (self.workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                self._plot(values.pop("step"), values)
        self._file = (self.workdir / "metrics.jsonl").open("a", buffering=1, encoding="utf-8")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One line in metrics.jsonl, one point per value in TensorBoard, one line on screen."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._plot(step, values)
        self._show(step, values)

    def _plot(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def _show(self, step: int, v: dict[str, float]) -> None:
        held = f" (penalty {v['penalty']:.4f})" if "penalty" in v else ""
        text = f"loss {v.get('loss', math.nan):.4f}{held}  |g| {v.get('grad_norm', math.nan):.2f}  lr {v['learning_rate']:.1e}"
        if "d_told_apart" in v:
            text += f"  told apart {v['d_told_apart']:.2f}  distinct-2 {v.get('distinct_2', math.nan):.2f}"
        text += f"  target tok/s {v['target_tokens_per_second']:,.0f}  pad {v['padding_share']:.1%}" + (f"  MFU {v['mfu']:.1%}" if "mfu" in v else "")
        text += f"  eta {v['eta_seconds'] / 60:.0f} min"
        if "val_loss" in v:
            told = f"perplexity {v['val_perplexity']:.2f}" if "val_perplexity" in v else f"accuracy {v['val_accuracy']:.3f}"
            text += f"  | validation loss {v['val_loss']:.4f}  {told}"
            text += "".join(f"  {name[4:]} {value:.4f}" for name, value in v.items() if name.startswith("val_") and "@" in name)
        self.console.print(f"step {step:>6}/{self.steps}  {text}")

    def note(self, text: str) -> None:
        """A line for the person at the screen."""
        if self.active:
            self.console.print(text, markup=False)

    def samples(self, rows: list[dict]) -> None:
        """Appends sample reasons to samples.jsonl and shows them."""
        if not self.active or not rows:
            return
        with (self.workdir / "samples.jsonl").open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                self.console.print(f"    {row['item']}: {row['reason']}", markup=False)

    def close(self) -> None:
        """Flushes everything."""
        if self.active:
            self._file.close()
            self._board.close()


def _cut(path: pathlib.Path, resumed_at: int) -> None:
    """Drops what was logged after the step that the run continues from (and a half-written last line)."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= resumed_at:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(fresh, path)


def memory_bytes() -> int:
    """Peak memory: of the first device where it reports one, else of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
