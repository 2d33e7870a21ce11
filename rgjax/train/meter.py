"""What a run's steps took and held, between two logged ones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from flax import nnx

from rgjax.config import TrainConfig
from rgjax.models.build import ModelFactory
from rgjax.train import flops
from rgjax.train.records import RunLog, memory_bytes
from rgjax.train.state import everything
from rgjax.train.stragglers import Stragglers

TOLD = ("loss", "nll", "correct", "grad_norm", "tokens", "target_tokens")  # metrics that are told otherwise than as they are, or by name


class Begun(NamedTuple):
    """Seconds of one step until it was started: for its batch, for the start itself, and from asking for the batch on."""

    waited: float = 0.0
    dispatched: float = 0.0
    begun: float = 0.0


NOTHING = Begun()


class Meter:
    """Counts tokens and time between two logged steps; the first step (compilation) is kept apart.

    A step is usually read when the next one has been started already, for which the time belongs to the next window: a window ends where the
    wait for that step began.
    """

    def __init__(
        self, factory: ModelFactory, log: RunLog, step: int, config: TrainConfig, trained: Callable[[str], bool] = everything, passes: int = 1,
        shares: int = 1, writes: bool = False, devices: int = 1,
    ):  # fmt: skip
        """`trained` says which parameters are, by path; `passes` is how often a step reads its batch, `shares` how many parts it has, `devices`
        how many compute it. A step that
        `writes` texts besides does work that the batch does not tell, so no MFU is told."""
        self.shares, self.writes, self.devices = shares, writes, devices
        self.factory, self.log, self.config, self.trained, self.passes = factory, log, config, trained, passes
        self.params = nnx.to_pure_dict(factory.abstract)
        self.compile_seconds, self.last, self.first = None, {}, False
        self.stragglers = Stragglers()
        self.unread, self.asked, self.newest = 0, 0.0, NOTHING  # steps started and not read; of the newest, when its batch was asked for
        self._begin(time.perf_counter())

    def _begin(self, now: float) -> None:
        """A window begins now, or began when the step that is under way was waited for."""
        ahead = self._ahead()
        self.since, self.waited, self.dispatched = now - ahead.begun, ahead.waited, ahead.dispatched
        self._clear()

    def _ahead(self) -> Begun:
        """What was spent on a step that comes after those read."""
        return self.newest if self.unread else NOTHING

    def _clear(self) -> None:
        self.steps, self.counts = 0, dict.fromkeys(("tokens", "encoder_tokens", "target_tokens", "examples", "slots"), 0.0)

    def wait_for(self, data: Iterator):
        """The next batch; the time spent waiting for it is counted."""
        self.asked = time.perf_counter()
        batch = next(data)
        self.newest = Begun(waited=time.perf_counter() - self.asked)
        self.waited += self.newest.waited
        return batch

    @contextlib.contextmanager
    def dispatching(self) -> Iterator[None]:
        """Counts the time that it takes to start a step."""
        start = time.perf_counter()
        yield
        now = time.perf_counter()
        self.newest = Begun(self.newest.waited, now - start, now - self.asked)
        self.dispatched, self.unread = self.dispatched + self.newest.dispatched, self.unread + 1

    def skip(self, seconds: float) -> None:
        """Leaves time spent on evaluation and saving out of the rates."""
        self.since += seconds

    def add(self, values: dict, batch: dict) -> None:
        """Counts one finished step; `values` hold global target tokens, the rest is scaled up from this process's rows."""
        self.unread -= 1
        if self.compile_seconds is None:
            self.compile_seconds = time.perf_counter() - self.since
            self._begin(time.perf_counter())
            self.first = True
        elif self.first:
            self.first = False
            if self.steps:  # the compiling step was not reported: its tokens must not count, since its time does not
                self._clear()
        self.steps += 1
        self.counts["target_tokens"] += values["target_tokens"]
        segments = batch["segment_ids"]
        self.counts["tokens"] += np.count_nonzero(segments) * self.shares
        self.counts["examples"] += segments.max(axis=1).sum() * self.shares
        self.counts["slots"] += segments.size * self.shares
        if "encoder_segment_ids" in batch:
            encoder = batch["encoder_segment_ids"]
            self.counts["encoder_tokens"] += np.count_nonzero(encoder) * self.shares
            self.counts["slots"] += encoder.size * self.shares

    def report(self, step: int, values: dict, learning_rate: float, validation: dict[str, float]) -> None:
        """Logs one step with the rates since the last report.

        `loss` is what the step lowers, per target token: the cross entropy, smoothed where asked for, what R-Drop, FGM or the contrast of codes adds,
        and the `penalty`, which also stands alone; `perplexity` and `accuracy` are those of the reasons, without either. A skipped step has
        none of those that are not finite. Pairs have a `margin` and no perplexity; adversarial rounds tell of both sides.
        """
        now = time.perf_counter()
        ahead, steps = self._ahead(), max(self.steps, 1)
        waited, dispatched = (self.waited - ahead.waited) / steps, (self.dispatched - ahead.dispatched) / steps
        seconds = self.compile_seconds if self.first and self.steps == 1 else max(now - ahead.begun - self.since, 1e-9)
        real = self.counts["tokens"] + self.counts["encoder_tokens"]
        found = {
            "loss": values["loss"],
            **{name: value for name, value in values.items() if name not in TOLD},
            **({} if "margin" in values else {"perplexity": math.exp(min(values["nll"], 50))}),
            **({"accuracy": values["correct"]} if "correct" in values else {}),
            "grad_norm": values["grad_norm"],
            "learning_rate": learning_rate,
            "target_tokens_per_second": self.counts["target_tokens"] / seconds,
            "tokens_per_second": real / seconds,
            "padding_share": 1.0 - real / max(self.counts["slots"], 1.0),
            **({} if self.writes else {"mfu": self._work() / (seconds * flops.peak_flops(self.devices)[0])}),
            "step_seconds": seconds / steps,
            "data_wait_seconds": waited,
            "memory_bytes": memory_bytes(),
        }
        self.last = {name: value for name, value in found.items() if math.isfinite(value)}
        eta = (self.config.steps - step) * self.last["step_seconds"]
        self.log.scalars(step, {**self.last, **validation, "eta_seconds": eta})
        if text := self.stragglers.note(waited, dispatched, self.last["step_seconds"]):
            self.log.note(text)
        self._begin(now)

    def _work(self) -> float:
        return flops.step_flops(self.factory.config, self.params, self.factory.vocab_size, self.counts, self.trained, self.passes)
