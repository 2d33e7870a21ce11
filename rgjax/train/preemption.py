"""SIGTERM, as a scheduler sends before it takes a machine away: all processes end after the same step."""

from __future__ import annotations

import signal
import time

import jax

from rgjax.parallel import mesh as mesh_lib

STEPS, SECONDS = 8, 5.0  # at most between two times that several processes ask each other, as far as steps are no longer themselves


class Preemption:
    """Within its context SIGTERM is noted, and does nothing else."""

    def __init__(self, step: int):
        """`step` is the one that the run begins or goes on at, the same in all processes."""
        self.requested = self.agreed = False
        self._asked, self._next, self._since = step, step, time.perf_counter()

    def __enter__(self) -> Preemption:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_) -> None:
        self.requested = True

    def ends(self, step: int) -> bool:
        """Whether to end before the next step. Several processes ask each other only now and then, since each time waits for the devices."""
        if jax.process_count() == 1:
            self.agreed = self.requested
        elif step >= self._next:
            now = time.perf_counter()
            took = (now - self._since) / (step - self._asked) if step > self._asked else SECONDS  # of a step, unknown at first
            stop, slowest = mesh_lib.most([float(self.requested), took])  # a signal that comes while it waits counts the next time
            self.agreed = bool(stop)
            self._asked, self._since, self._next = step, now, step + max(1, min(STEPS, int(SECONDS / max(slowest, 1e-6))))
        return self.agreed
