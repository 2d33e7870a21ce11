"""The loop: dispatch step N, then read the metrics of step N-1; evaluate, save and stop when due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from rgjax import trees
from rgjax.config import OptimizerConfig, TrainConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.parallel import mesh as mesh_lib
from rgjax.parallel import sharding
from rgjax.train import optimizer, workdir
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.meter import Meter
from rgjax.train.nonfinite import NonFinite
from rgjax.train.preemption import Preemption
from rgjax.train.preference import together
from rgjax.train.profile import Profile, steps
from rgjax.train.records import RunLog
from rgjax.train.state import TrainState, abstract_state, create
from rgjax.train.step import SumsFn, make_eval_step, make_train_step
from rgjax.train.tuning import ALL, Tuning


class Judge(NamedTuple):
    """The validation figure that tells the best checkpoint; `sign` 1 where less is better, -1 where more is."""

    name: str = "val_loss"
    sign: int = 1


BY_LOSS = Judge()


class Method(NamedTuple):
    """How a step changes the state, where it is not by `make_train_step` and one optimizer."""

    tx: optax.GradientTransformation  # makes the optimizer state
    step: Callable[[TrainState], Callable]  # a state to lie like -> step(state, fixed, batch) -> (state, metrics)
    schedule: optax.Schedule  # the learning rate that is told
    parts: int  # slices [parts, rows, ...] that a step's batch comes in
    note: Callable[[int, dict[str, float], dict], None]  # sees every step's metrics and the run's progress; raises UserError to end the run
    sound: Callable[[dict], bool] = lambda progress: True  # whether the weights deserve a checkpoint, by the run's progress
    waits: bool = False  # a step ends when it is computed, not when it is dispatched: then it is reported at once


class Loop:
    """One training run of one task."""

    def __init__(
        self,
        factory: ModelFactory,
        sums_fn: SumsFn,
        data: Iterator[dict[str, np.ndarray]],
        validation: Callable[[], Iterator[dict[str, np.ndarray]]],
        sample: Callable[[dict, int], list[dict]],
        config: TrainConfig,
        optimizer_config: OptimizerConfig,
        mesh: jax.sharding.Mesh,
        tuning: Tuning = ALL,
        measure: Callable[[dict], dict[str, float]] | None = None,
        judge: Judge = BY_LOSS,
        method: Method | None = None,
    ):
        """`data` is a checkpointable iterator of this process's rows, closed at the end; `sample(params, step)` writes a few reasons.

        `measure(params)` gives the validation figures, `judge` among them, where the loss over `validation` is not enough.
        """
        self.factory, self.data, self.validation, self.sample = factory, data, validation, sample
        self.config, self.optimizer_config, self.mesh, self.tuning = config, optimizer_config, mesh, tuning
        self.measure, self.judge = measure, judge
        self.schedule = method.schedule if method else optimizer.schedule(optimizer_config, config.steps)
        self.method, self.parts = method, method.parts if method else optimizer_config.accumulate
        tx = method.tx if method else optimizer.make(optimizer_config, config.steps, tuning.config)
        self.claim = workdir.claim(config.workdir) if jax.process_index() == 0 else None
        self.checkpoints = Checkpoints(f"{config.workdir}/checkpoints", config.keep)
        self.progress = {"best": math.inf, "stale": 0, "skipped": 0}
        self.state = self._begin(tx)
        skip = config.nonfinite == "skip"
        usual = lambda: make_train_step(factory, sums_fn, tx, optimizer_config, tuning.penalty, skip, self.state)
        self.train_step = method.step(self.state) if method else usual()
        self.eval_step = make_eval_step(factory, sums_fn, self.state)
        self.watch = NonFinite(config, self.progress["skipped"], mesh_lib.share(mesh))
        self.log = RunLog(config.workdir, config.steps, self.step)
        self.profile = Profile(steps(config.profile_steps), f"{config.workdir}/profile", self.step, self.log.note)
        passes, shares = 3 if optimizer_config.fgm else 2 if optimizer_config.rdrop or optimizer_config.code_contrast else 1, mesh_lib.share(mesh)[1]
        work = getattr(factory, "generator", factory)
        self.meter = Meter(work, self.log, self.step, config, tuning.trained, passes, shares, method is not None, mesh.size)
        self.preemption = Preemption(self.step)

    def _begin(self, tx) -> TrainState:
        ema, tuning = self.optimizer_config.ema > 0, self.tuning
        self.step, self.notes = 0, []
        if self.checkpoints.begins():
            own = tuning.initial and tuning.initial()
            state, frozen = create(self.factory, tx, self.mesh, ema, self.config.seed, own, tuning.trained)
            self.fixed = {"weights": frozen, **tuning.extras(trees.join(state.params, frozen), True)}
            return state
        abstract = abstract_state(self.factory, tx, self.mesh, ema, self.config.seed, tuning.trained)
        self.step, state, progress, self.notes = self.checkpoints.restore(abstract, self.data)
        frozen = trees.divide(tuning.initial(), tuning.trained)[1] if tuning.freezes else {}
        self.fixed = {"weights": frozen, **tuning.extras(trees.join(state.params, frozen), False)}
        self.progress |= {k: (math.inf if v is None and k == "best" else v) for k, v in progress.items()}
        return state

    def run(self) -> dict[str, Any]:
        """Trains to the end (or early stopping, or SIGTERM) and returns a summary."""
        with self.preemption:
            try:
                self.log.note(f"mesh {dict(self.mesh.shape)} on {self.mesh.size} of {jax.device_count()} devices")
                for text in self.notes:
                    self.log.note(text)
                if self.step:
                    self.log.note(f"continuing at step {self.step}")
                self._train()
                self._finish()
            except UserError:
                self.checkpoints.wait()  # what is being saved is sound
                raise
            finally:
                self.profile.close(self.step)
                self.data.close()
                self.log.close()
        return self._summary()

    def _train(self) -> None:
        pending: tuple[int, dict, dict] | None = None
        while self.step < self.config.steps and not self.preemption.ends(self.step) and not self._out_of_patience():
            batch = self.meter.wait_for(self.data)
            placed = sharding.put(batch, self.mesh, self.parts, together(self.optimizer_config))
            with self.profile.step(self.step + 1, self.state), jax.transfer_guard("disallow"), self.meter.dispatching():
                self.state, metrics = self.train_step(self.state, self.fixed, placed)
            self.step += 1
            self.meter.skip(self.profile.after(self.step, metrics))
            if pending:
                self._report(pending[0], self._read(*pending))
            pending = (self.step, metrics, batch)
            if self._due(self.config.eval_every) or self._due(self.config.save_every):
                self._milestone(self._read(*pending))
                pending = None
            elif self.method and self.method.waits:
                self._report(self.step, self._read(*pending))
                pending = None
        if pending:
            self._report(pending[0], self._read(*pending))

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.progress["stale"]

    def _read(self, step: int, metrics: dict, batch: dict) -> dict[str, float]:
        """A finished step's metrics as numbers, counted; stops the run when they are not finite, or says that it goes on."""
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        if self.method:
            self.method.note(step, values, self.progress)
        elif text := self.watch.note(step, values, batch):
            self.log.note(text)
        self.meter.add(values, batch)
        return values

    def _report(self, step: int, values: dict[str, float], validation: dict[str, float] | None = None) -> None:
        """Logs a step if it is due, or if it was validated: one line holds both."""
        if validation or step % self.config.log_every == 0 or step == self.config.steps or step == 1:
            skipped = {"skipped": self.watch.skipped} if self.config.nonfinite == "skip" else {}
            rate = float(self.schedule(step - 1 - self.watch.skipped))  # the optimizer counts the steps it took
            self.meter.report(step, values | skipped, rate, validation or {})

    def _milestone(self, values: dict[str, float]) -> None:
        paused, found = time.perf_counter(), {}
        if self._due(self.config.eval_every):
            found = self.evaluate()
        self.meter.skip(time.perf_counter() - paused)
        self._report(self.step, values, found)
        paused, judged = time.perf_counter(), self.judge.sign * found[self.judge.name] if found else None
        sound = self._sound()
        improved = sound and judged is not None and judged < self.progress["best"]
        if judged is not None:
            self.log.samples(self.sample(self.weights(), self.step))
            stale = 0 if improved else self.progress["stale"] + 1
            self.progress |= {"best": judged if improved else self.progress["best"], "stale": stale}
        if improved or (sound and self._due(self.config.save_every)):
            self._save(judged)
        self.meter.skip(time.perf_counter() - paused)

    def _sound(self) -> bool:
        return not self.method or self.method.sound(self.progress)

    def weights(self) -> dict:
        """All parameters as they are used: averaged where an average is kept, and with those that are not trained."""
        return trees.join(self.state.ema or self.state.params, self.fixed["weights"])

    def evaluate(self) -> dict[str, float]:
        """`val_loss` per target token (nats), `val_perplexity` and `val_accuracy` of the averaged parameters; {} without a validation split.

        Of pairs: the loss per pair and the share that is the right way round.
        """
        params, totals = self.weights(), None
        if self.measure:
            return self.measure(params)
        for batch in self.validation():
            sums = self.eval_step(params, sharding.put(batch, self.mesh))
            totals = sums if totals is None else jax.tree.map(lambda a, b: a + b, totals, sums)
        if totals is None:
            return {}
        totals = {k: float(v) for k, v in jax.device_get(totals).items()}
        loss = totals["nll"] / max(totals["tokens"], 1.0)
        accuracy = totals["correct"] / max(totals["tokens"], 1.0)
        perplexity = {} if "margin" in totals else {"val_perplexity": math.exp(min(loss, 50))}
        return {"val_loss": loss, **perplexity, "val_accuracy": accuracy}

    def _save(self, judged: float | None) -> None:
        self.progress["skipped"] = self.watch.skipped
        progress = {k: (None if v == math.inf else v) for k, v in self.progress.items()}
        self.checkpoints.save(self.step, self.state, self.data, progress, judged)

    def _finish(self) -> None:
        if self._sound() or self.step >= self.config.steps:
            self._save(None)
        self.checkpoints.wait()
        if self.preemption.requested or self.preemption.agreed:
            saved = self.checkpoints.latest
            there = "nothing is saved yet, the same command starts anew"
            there = there if saved is None else f"step {saved} is saved, the same command goes on from there"
            self.log.note(f"stopped by SIGTERM; {there}")

    def _summary(self) -> dict[str, Any]:
        best = self.progress["best"]
        return {
            "workdir": str(self.config.workdir), "step": self.step, "steps": self.config.steps,
            "finished": self.step >= self.config.steps or self._out_of_patience(), "parameters": self.factory.count(),
            f"best_{self.judge.name}": None if best == math.inf else self.judge.sign * best, "best_step": self.checkpoints.best,
            **self.meter.last, "compile_seconds": self.meter.compile_seconds,
        }  # fmt: skip
