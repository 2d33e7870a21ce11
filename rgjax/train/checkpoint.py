"""Checkpoints with Orbax v1: model, optimizer, random key, step and data iterator, saved together and asynchronously."""

from __future__ import annotations

import math
import pathlib
import threading
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from rgjax.errors import UserError, first_line
from rgjax.parallel import mesh as mesh_lib
from rgjax.train import integrity
from rgjax.train.state import TrainState

FULL = ("No space left", "Disk quota exceeded", "File too large")  # how writers in several languages say it
_policies = ocp.training.preservation_policies


class Continued(NamedTuple):
    """Where a run goes on from; `notes` say what was found damaged on the way there."""

    step: int
    state: TrainState
    progress: dict
    notes: list[str]


class Checkpoints:
    """The checkpoints of one run; keeps the latest `keep` and the best one: with the lowest `judged` (usually the validation loss)."""

    def __init__(self, folder: str | pathlib.Path, keep: int = 1, reading: bool = False):
        """`reading` leaves alone what a training process may be writing in the same folder at this moment."""
        self.folder, self._keep, self._reading = pathlib.Path(folder).absolute(), keep, reading
        self._sealing: threading.Thread | None = None
        self._notes = self._listable()
        self._open()

    def _listable(self) -> list[str]:
        """Sets aside what would keep all checkpoints from being listed; says so."""
        broken = integrity.unlistable(self.folder) if jax.process_index() == 0 or self._reading else []
        if broken and self._reading:
            raise UserError(f"Checkpoint {broken[0]} is damaged (metrics/metrics is no JSON); go on training, which sets it aside, or move it away.")
        notes = [f"checkpoint {p.name} is damaged (metrics/metrics is no JSON); it is kept as {integrity.set_aside(p)}" for p in broken]
        if not self._reading:
            mesh_lib.meet("checkpoints listed")
        return notes

    def _open(self) -> None:
        best = _policies.BestN(get_metric_fn=lambda m: -m["val_loss"], n=1, keep_checkpoints_without_metrics=False)
        policy = _policies.AnyPreservationPolicy([_policies.LatestN(self._keep), best])
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)  # Orbax's own drops what comes while another is being saved
        self._manager = ocp.training.Checkpointer(
            self.folder, save_decision_policy=always, preservation_policy=policy, cleanup_tmp_directories=not self._reading
        )
        self._begun = self.latest

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, the newest last."""
        return [c.step for c in self._manager.checkpoints]

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self.steps[-1] if self.steps else None

    def begins(self) -> bool:
        """Whether there is nothing to go on from; raises UserError where all that there was is damaged."""
        if self.steps:
            return False
        if lost := sorted(self.folder.glob("damaged-*")):
            raise UserError(f"{self.folder} holds damaged checkpoints only ({lost[0].name}); put a copy of one back, or give a new --workdir.")
        return True

    @property
    def best(self) -> int | None:
        """Step with the lowest `judged`; the newest where none was validated; None without checkpoints."""
        scored = [(c.metrics["val_loss"], -c.step) for c in self._manager.checkpoints if c.metrics]
        return -min(scored)[1] if scored else self.latest

    def save(self, step: int, state: TrainState, data: Any, progress: dict, judged: float | None) -> None:
        """Starts a save, once the one before is done; it completes in the background, appears only when whole, and is then sealed with a manifest."""
        if step == self._begun:
            return
        self.wait()
        metrics = None if judged is None or math.isnan(judged) else {"val_loss": judged}  # the name in folders of all versions
        items = {"state": state._asdict(), "data": data}
        going_on = self._manager.save_checkpointables_async(step, items, metrics=metrics, custom_metadata=progress)
        if going_on is None:
            raise RuntimeError(f"Orbax did not save step {step} into {self.folder}")
        self._begun = step
        if jax.process_index() == 0:
            self._sealing = threading.Thread(target=self._seal, args=(going_on, step), name="seal", daemon=True)
            self._sealing.start()

    def _seal(self, going_on, step: int) -> None:
        try:
            going_on.result()
            integrity.seal(self.folder / str(step))
        except Exception:  # a failed save is told by `wait`; without a manifest a checkpoint is just not verified
            pass

    def restore(self, abstract: TrainState, data: Any) -> Continued:
        """The newest good checkpoint, on the shardings of `abstract`; `data` is set to where it stood.

        A checkpoint that differs from its manifest, or has none and can't be read, is renamed to damaged-STEP. All processes
        take the same step. Raises UserError when none is good, and then leaves all as they are.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps):
            path, found = self.folder / str(step), None
            what = integrity.damage(path) if jax.process_index() == 0 else ""
            if not mesh_lib.anywhere(bool(what)):
                found, what = self._load(step, abstract, data)
            failed = mesh_lib.anywhere(found is None)  # asked by all, also by those that know
            if found and not failed:
                return Continued(step, *found, self._notes + self._set_aside(damaged, step))
            damaged[step] = what or "it can't be read"
        listed = "; ".join(f"{step}: {what}" for step, what in damaged.items())
        raise UserError(f"No checkpoint in {self.folder} is whole ({listed}); put a copy of one back, or start again with a new --workdir.")

    def _set_aside(self, damaged: dict[int, str], good: int) -> list[str]:
        if not damaged:
            return []
        notes = []
        if jax.process_index() == 0:
            for step, what in damaged.items():
                moved = integrity.set_aside(self.folder / str(step))
                notes.append(f"checkpoint {step} is damaged ({what}); it is kept as {moved}, and the run goes on from step {good}")
        mesh_lib.meet("damaged checkpoints set aside")
        self._manager.close()
        self._open()
        return notes

    def _load(self, step: int, abstract: TrainState, data: Any) -> tuple[tuple[TrainState, dict] | None, str]:
        """((state, progress), ''), or None and why; raises UserError when a checkpoint that is whole does not fit the run."""
        try:
            found = self._manager.load_checkpointables(step, {"state": abstract._asdict(), "data": data})
            progress = self._manager.checkpointables_metadata(step).custom_metadata
            if not progress:
                raise ValueError("what it tells of the run's progress is gone")
            return (TrainState(**jax.block_until_ready(found["state"])), progress), ""
        except Exception as error:  # Orbax raises many kinds for a damaged folder
            if not integrity.sealed(self.folder / str(step)):  # a write may have been cut off
                return None, first_line(error)
            if self._state_alone(step, abstract):
                raise UserError(
                    f"The data position in checkpoint {self.folder}/{step} does not fit this run ({first_line(error)}); go on with the same "
                    "--packing and --streams."
                ) from None
            raise UserError(
                f"Checkpoint {self.folder}/{step} is as it was written and can't be read ({first_line(error)}); move it out of there to go on "
                "from the one before."
            ) from None

    def _state_alone(self, step: int, abstract: TrainState) -> bool:
        """Only tells which of two sentences the user reads; either way the run stops."""
        try:
            self._manager.load_checkpointables(step, {"state": abstract._asdict()})
        except Exception:
            return False
        return True

    def load(self, step: int, abstract: TrainState) -> TrainState:
        """The state of a step, to use it otherwise than for going on; raises UserError when the checkpoint is damaged."""
        if what := integrity.damage(self.folder / str(step)):
            others = ", ".join(str(s) for s in self.steps if s != step) or "none"
            raise UserError(
                f"Checkpoint {self.folder}/{step} is damaged ({what}); use another with --checkpoint (there are: {others}), or go on training, "
                "which sets it aside."
            )
        try:
            state = self._manager.load_checkpointables(step, {"state": abstract._asdict()})["state"]
        except Exception as error:
            raise UserError(f"Checkpoint {self.folder}/{step} can't be read ({first_line(error)}); use another with --checkpoint.") from None
        return TrainState(**jax.block_until_ready(state))

    def load_params(self, step: int, abstract: TrainState) -> dict:
        """Parameters to use after training: the moving average where one was kept; raises UserError when the checkpoint is damaged."""
        state = self.load(step, abstract)
        return state.ema or state.params

    def wait(self) -> None:
        """Returns when nothing is being written any more; raises what a background save raised, UserError where the disk is full."""
        try:
            self._manager.wait()
        except Exception as error:
            if any(words in str(error) for words in FULL):
                whole = f"checkpoint {self.latest} is whole" if self.steps else "there is no other yet"
                raise UserError(
                    f"No space was left to write a checkpoint into {self.folder} ({whole}); free some and run the same command again."
                ) from None
            raise
        if self._sealing:
            self._sealing.join()

    def close(self) -> None:
        """Waits and frees the writer's threads."""
        if self._sealing:
            self._sealing.join()
        self._manager.close()


def saved(workdir: str | pathlib.Path) -> bool:
    """Whether a run has a complete checkpoint to go on from."""
    return any(path.name.isdigit() for path in pathlib.Path(workdir, "checkpoints").glob("*"))  # unfinished ones have longer names
