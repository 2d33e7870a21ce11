"""What a step took, beside a loop whose host and device take known times."""

import types

import numpy as np
import pytest
import tiny

from rgjax.config import TrainConfig
from rgjax.train import meter as meter_lib
from rgjax.train.meter import Meter

VALUES = {"loss": 1.0, "nll": 1.0, "correct": 0.5, "grad_norm": 1.0, "target_tokens": 8.0}


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def run(monkeypatch, *, wait, start, device, steps=37, log_every=5, eval_every=12, evaluation=50.0, writes=False):
    """[(step, what was reported)] of a loop as `rgjax.train.loop.Loop` has it; all in seconds."""
    clock, told = Clock(), []
    monkeypatch.setattr(meter_lib, "time", clock)
    made = tiny.factory("llama")
    batch = tiny.training_batch(made, 4, 32)
    log = types.SimpleNamespace(scalars=lambda step, values: told.append((step, values)), note=lambda text: None)
    meter = Meter(made, log, 0, TrainConfig(steps=steps), writes=writes)

    def data():
        while True:
            clock.now += wait
            yield batch

    batches, done, pending = data(), {}, None

    def read(step):
        clock.now = max(clock.now, done[step])
        meter.add(VALUES, batch)
        if step == 1 or step % log_every == 0 or step % eval_every == 0 or step == steps:
            meter.report(step, VALUES, 1e-3, {})

    for step in range(1, steps + 1):
        meter.wait_for(batches)
        with meter.dispatching():
            clock.now += start
            done[step] = max(clock.now, done.get(step - 1, 0.0)) + device
        if pending:
            read(pending)
        pending = step
        if step % eval_every == 0 or step == steps:
            read(step)
            clock.now += evaluation
            meter.skip(evaluation)
            pending = None
    return told


def test_a_step_that_waits_for_its_data_takes_as_long_in_every_window(monkeypatch):
    """Also in the one of a single step that the last evaluation ends, and in those before and after an evaluation."""
    told = run(monkeypatch, wait=0.4, start=0.1, device=0.0)
    assert [step for step, _ in told] == [1, 5, 10, 12, 15, 20, 24, 25, 30, 35, 36, 37]
    for _, values in told[1:]:
        assert values["step_seconds"] == pytest.approx(0.5) and values["data_wait_seconds"] == pytest.approx(0.4)
        assert values["target_tokens_per_second"] == pytest.approx(8 / 0.5)


def test_a_step_that_the_device_takes_its_time_for_costs_no_host_time_beside(monkeypatch):
    """But for the first after a pause, which nothing hides."""
    told = run(monkeypatch, wait=0.02, start=0.01, device=1.0, evaluation=0.0)
    counted = np.diff([0] + [step for step, _ in told])
    for (_, values), steps in list(zip(told, counted, strict=True))[1:]:
        assert 1.0 - 1e-9 <= values["step_seconds"] <= 1.0 + 0.03 / steps + 1e-9


def test_a_step_that_writes_tells_no_mfu(monkeypatch):
    times = {"wait": 0.1, "start": 0.1, "device": 1.0}
    assert all("mfu" in values for _, values in run(monkeypatch, **times))
    assert not any("mfu" in values for _, values in run(monkeypatch, **times, writes=True))
