"""What a run's steps took and held, between two logged ones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
from flax import nnx

from rgjax.config import TrainConfig
from rgjax.models.build import ModelFactory
from rgjax.train import flops
from rgjax.train.records import RunLog, memory_bytes
from rgjax.train.state import everything
from rgjax.train.stragglers import Stragglers

TOLD = ("loss", "nll", "correct", "grad_norm", "tokens", "target_tokens")  # metrics that are told otherwise than as they are, or by name


class Meter:
    """Counts tokens and time between two logged steps; the first step (compilation) is kept apart."""

    def __init__(
        self, factory: ModelFactory, log: RunLog, step: int, config: TrainConfig, trained: Callable[[str], bool] = everything, passes: int = 1,
        shares: int = 1,
    ):  # fmt: skip
        """`trained` says which parameters are, by path; `passes` is how often a step reads its batch, `shares` how many parts it has."""
        self.shares = shares
        self.factory, self.log, self.config, self.trained, self.passes = factory, log, config, trained, passes
        self.params = nnx.to_pure_dict(factory.abstract)
        self.compile_seconds, self.last, self.first = None, {}, False
        self.stragglers = Stragglers()
        self._reset(time.perf_counter())

    def _reset(self, now: float) -> None:
        self.since, self.waited, self.dispatched, self.steps = now, 0.0, 0.0, 0
        self.counts = dict.fromkeys(("tokens", "encoder_tokens", "target_tokens", "examples", "slots"), 0.0)

    def wait_for(self, data: Iterator):
        """The next batch; the time spent waiting for it is counted."""
        start = time.perf_counter()
        batch = next(data)
        self.waited += time.perf_counter() - start
        return batch

    @contextlib.contextmanager
    def dispatching(self) -> Iterator[None]:
        """Counts the time that it takes to start a step."""
        start = time.perf_counter()
        yield
        self.dispatched += time.perf_counter() - start

    def skip(self, seconds: float) -> None:
        """Leaves time spent on evaluation and saving out of the rates."""
        self.since += seconds

    def add(self, values: dict, batch: dict) -> None:
        """Counts one finished step; `values` hold global target tokens, the rest is scaled up from this process's rows."""
        if self.compile_seconds is None:
            self.compile_seconds = time.perf_counter() - self.since
            self._reset(time.perf_counter())
            self.first = True
        elif self.first:
            self.first = False
            if self.steps:  # the compiling step was not reported: its tokens must not count, since its time does not
                self._reset(self.since)
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
        seconds = self.compile_seconds if self.first and self.steps == 1 else max(now - self.since, 1e-9)
        peak, _ = flops.peak_flops()
        work = flops.step_flops(self.factory.config, self.params, self.factory.vocab_size, self.counts, self.trained, self.passes)
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
            "mfu": work / (seconds * peak),
            "step_seconds": seconds / max(self.steps, 1),
            "data_wait_seconds": self.waited / max(self.steps, 1),
            "memory_bytes": memory_bytes(),
        }
        self.last = {name: value for name, value in found.items() if math.isfinite(value)}
        eta = (self.config.steps - step) * self.last["step_seconds"]
        self.log.scalars(step, {**self.last, **validation, "eta_seconds": eta})
        steps = max(self.steps, 1)
        if text := self.stragglers.note(self.waited / steps, self.dispatched / steps, self.last["step_seconds"]):
            self.log.note(text)
        self._reset(now)
