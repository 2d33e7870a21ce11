"""Checkpoints with Orbax v1: model, optimizer, random key, step and data iterator, saved together and asynchronously."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from rgjax.errors import UserError
from rgjax.train.state import TrainState

_policies = ocp.training.preservation_policies


class Checkpoints:
    """The checkpoints of one run; keeps the latest `keep` and the one with the lowest validation loss."""

    def __init__(self, folder: str | pathlib.Path, keep: int = 1, reading: bool = False):
        """`reading` leaves alone what a training process may be writing in the same folder at this moment."""
        best = _policies.BestN(get_metric_fn=lambda m: -m["val_loss"], n=1, keep_checkpoints_without_metrics=False)
        policy = _policies.AnyPreservationPolicy([_policies.LatestN(keep), best])
        self.folder = pathlib.Path(folder).absolute()
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)  # Orbax's own drops what comes while another is being saved
        self._manager = ocp.training.Checkpointer(
            self.folder, save_decision_policy=always, preservation_policy=policy, cleanup_tmp_directories=not reading
        )
        self._begun = self.latest

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return None if self._manager.latest is None else self._manager.latest.step

    @property
    def best(self) -> int | None:
        """Step with the lowest validation loss; the newest where none was validated; None without checkpoints."""
        scored = [(c.metrics["val_loss"], -c.step) for c in self._manager.checkpoints if c.metrics]
        return -min(scored)[1] if scored else self.latest

    def save(self, step: int, state: TrainState, data: Any, progress: dict, val_loss: float | None) -> None:
        """Starts a save, once the one before is done; it completes in the background and appears only when whole."""
        if step == self._begun:
            return
        metrics = None if val_loss is None else {"val_loss": val_loss}
        items = {"state": state._asdict(), "data": data}
        if self._manager.save_checkpointables_async(step, items, metrics=metrics, custom_metadata=progress) is None:
            raise RuntimeError(f"Orbax did not save step {step} into {self.folder}")
        self._begun = step

    def restore(self, step: int, abstract: TrainState, data: Any) -> tuple[TrainState, dict]:
        """The state of a step, on the shardings of `abstract`, and the run's progress; `data` is set to where it stood."""
        try:
            found = self._manager.load_checkpointables(step, {"state": abstract._asdict(), "data": data})
            progress = self._manager.checkpointables_metadata(step).custom_metadata or {}
        except Exception as error:  # Orbax raises many kinds for a damaged folder
            if self._state_alone(step, abstract):
                raise UserError(
                    f"The data position in checkpoint {self.folder}/{step} does not fit this run ({_first(error)}); go on with the same "
                    "--workers, --packing and number of processes."
                ) from None
            raise UserError(
                f"Checkpoint {self.folder}/{step} can't be read ({_first(error)}); move it out of there to go on from the one before."
            ) from None
        return TrainState(**found["state"]), progress

    def _state_alone(self, step: int, abstract: TrainState) -> bool:
        """Only tells which of two sentences the user reads; either way the run stops."""
        try:
            self._manager.load_checkpointables(step, {"state": abstract._asdict()})
        except Exception:
            return False
        return True

    def load_params(self, step: int, abstract: TrainState) -> dict:
        """Parameters to use after training: the moving average where one was kept."""
        try:
            state = self._manager.load_checkpointables(step, {"state": abstract._asdict()})["state"]
        except Exception as error:
            raise UserError(f"Checkpoint {self.folder}/{step} can't be read ({_first(error)}); use another with --checkpoint.") from None
        return jax.block_until_ready(state["ema"] or state["params"])

    def wait(self) -> None:
        """Returns when nothing is being written any more; raises what a background save raised."""
        self._manager.wait()

    def close(self) -> None:
        """Waits and frees the writer's threads."""
        self._manager.close()


def saved(workdir: str | pathlib.Path) -> bool:
    """Whether a run has a complete checkpoint to go on from."""
    checkpoints = Checkpoints(f"{workdir}/checkpoints", reading=True)
    found = checkpoints.latest is not None
    checkpoints.close()
    return found


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
