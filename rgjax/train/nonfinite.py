"""What happens at a step whose loss or gradient is no finite number: the run stops, or the step counts for nothing."""

from __future__ import annotations

import math
import pathlib
import zipfile

import jax
import numpy as np

from rgjax.config import TrainConfig
from rgjax.errors import UserError

MOST_IN_A_ROW = 10  # skipped steps; more are no accident of a batch


class NonFinite:
    """Watches the metrics of finished steps; `skipped` counts those that were left out over the whole run."""

    def __init__(self, config: TrainConfig, skipped: int = 0, share: tuple[int, int] = (0, 1)):
        """`share` (k, n): this process reads the k-th of n parts of a batch's rows, maybe beside others that read the same."""
        self.config, self.skipped, self.in_a_row, self.share = config, skipped, 0, share

    def note(self, step: int, values: dict[str, float], batch: dict[str, np.ndarray]) -> str:
        """'' for a sound step, else a sentence; raises UserError where the run has to stop. The batch is kept for profiling.replay."""
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            self.in_a_row = 0
            return ""
        self.in_a_row += 1
        told = f"The loss of step {step} is {values['loss']} (gradient norm {values['grad_norm']})"
        part, parts = self.share
        path = f"{self.config.workdir}/nonfinite_step_{step}_part_{part}.npz"
        if self.in_a_row == 1:
            if jax.process_index() % (jax.process_count() // parts) == 0:  # the first of those that read it
                np.savez(path, step=step, part=part, parts=parts, **batch)
            told += f"; its batch is kept in {path}"
        look = f"profiling.replay --workdir={self.config.workdir} shows where it begins; " if self.config.task == "reason" else ""
        mend = "start anew with a lower --learning_rate or more --warmup_steps."
        if self.config.nonfinite == "stop":
            raise UserError(f"{told}; {look}give --nonfinite=skip to leave such steps out, or {mend}")
        self.skipped += 1
        if self.in_a_row == MOST_IN_A_ROW:
            raise UserError(f"{told}, the last of {MOST_IN_A_ROW} in a row; {look}{mend}")
        return f"{told}; the step was skipped, {self.skipped} so far"


def kept(workdir: str | pathlib.Path, batch: str = "") -> tuple[int, list[dict[str, np.ndarray]]]:
    """(step, the parts' rows [rows, ...] in order) of the batch that a run kept last, or of `batch`, one of its files.

    Raises UserError when there is none or it can't be read.
    """
    files = [pathlib.Path(batch)] if batch else sorted(pathlib.Path(workdir).glob("nonfinite_step_*_part_*.npz"), key=lambda p: p.stat().st_mtime)
    if not files:
        raise UserError(f"{workdir} kept no batch (nonfinite_step_*.npz): no step of it had a loss that is not finite.")
    found: dict[int, dict[tuple[int, int], dict]] = {}
    for path in files:
        try:
            rows = _load(path)
            step, part, parts = (int(rows.pop(name)) for name in ("step", "part", "parts"))
            others = {k: v for k, v in found.get(step, {}).items() if k[1] == parts}  # not those of an earlier time with other parts
            found[step] = others | {(part, parts): rows}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no batch that a run kept, or is damaged ({error}); name another with --batch.") from None
    return max(found), [found[max(found)][key] for key in sorted(found[max(found)])]


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:  # never a pickle: numpy refuses them unless asked
        return dict(file)
