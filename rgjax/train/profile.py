"""A profiler trace of chosen steps of a run (--profile_steps), for TensorBoard and `profiling.trace --read`."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from collections.abc import Callable, Iterator

import jax

from rgjax.errors import UserError

STEP = "train"  # what steps are called in a trace


def steps(text: str, of: int = 0) -> range:
    """'10:15' -> the steps 10 to 15, both included, '' -> none; raises UserError for anything else, and when `of` steps end before."""
    if not text:
        return range(0)
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text.strip())
    if not found or int(found[2]) < int(found[1]):
        raise UserError(f"--profile_steps={text} is not understood; write the first and the last step, as 10:15.")
    if of and int(found[1]) > of:
        raise UserError(f"--profile_steps={text} begins after the last of --steps={of}; name earlier steps.")
    return range(int(found[1]), int(found[2]) + 1)


def start(folder: str | pathlib.Path) -> None:
    """Begins a trace into a folder, of operations and annotations; Python calls would outweigh them."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    jax.profiler.start_trace(str(folder), profiler_options=options)


class Profile:
    """Traces `chosen` steps into `folder`, in the first process.

    A process's first step compiles, so a trace that would begin in it waits for the next step, unless the range itself begins there.
    """

    def __init__(self, chosen: range, folder: str | pathlib.Path, begun: int, note: Callable[[str], None]):
        """`begun` steps were taken before this process; `note` tells a line."""
        self.chosen = chosen if jax.process_index() == 0 else range(0)
        self.folder, self.first, self.note = pathlib.Path(folder), begun + 1, note
        self.since, self.spent = 0, 0.0  # the first traced step of an open trace; seconds that tracing itself took

    @contextlib.contextmanager
    def step(self, number: int, before=None) -> Iterator[None]:
        """Around the dispatch of a step; nothing unless it is chosen. A trace begins once `before`, the last step's results, is there."""
        compiles = number == self.first and number != self.chosen.start
        if number not in self.chosen or compiles:
            yield
            return
        if not self.since:
            jax.block_until_ready(before)
            with self._counted():
                start(self.folder)
            self.since = number
        with jax.profiler.StepTraceAnnotation(STEP, step_num=number):
            yield

    def after(self, number: int, results) -> float:
        """Ends the trace after its last step, once `results` are there; returns the seconds since the last call that tracing took."""
        if self.since and number >= self.chosen[-1]:
            jax.block_until_ready(results)
            self.close(number)
        spent, self.spent = self.spent, 0.0
        return spent

    def close(self, number: int) -> None:
        """Ends a trace that is still open, `number` steps having been taken."""
        if self.since:
            with self._counted():
                jax.profiler.stop_trace()
            self.note(f"traced steps {self.since} to {number} into {self.folder}; look with python -m profiling.trace --read={self.folder}")
            self.since, self.chosen = 0, range(0)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent += time.perf_counter() - began
