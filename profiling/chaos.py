"""Whether a run survives what can happen to it: killed at random moments, with checkpoints damaged in between.

    python -m profiling.chaos --kills=5
    python -m profiling.chaos --kills=5 --chaos_processes=2     (one of several is killed, and takes the others with it)

Makes a small shop, trains an unbroken run, and a second one that is killed (SIGKILL, or SIGTERM now and then) after a time drawn by
--seed, saves included, and started again, until it was killed so often and has finished. After some kills any one file of its newest
checkpoint is truncated, emptied, removed or gets a flipped bit. Each start must go on from the newest checkpoint that is whole, and in the end
metrics.jsonl must hold every step once, with the losses of the unbroken run, which one process trains. Exit code 1 when a promise is broken.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

from absl import flags

from launch import app, child
from rgjax.errors import UserError

flags.DEFINE_integer("kills", 5, "How often the run is ended.", lower_bound=1)
flags.DEFINE_integer("chaos_steps", 0, "Steps of the run; 0 takes 40 a kill.", lower_bound=0)
flags.DEFINE_integer("chaos_processes", 1, "Processes of the run that is killed, by launch.cluster.local.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of moments and damages.")
flags.DEFINE_string("folder", "", "Where to work; empty takes a temporary folder, which is removed.")

MODEL = {
    "layers": 1, "width": 32, "heads": 2, "length": 128, "target_length": 48, "batch_size": 8, "dropout": 0.1, "warmup_steps": 3, "log_every": 1,
    "eval_every": 1_000_000, "save_every": 3, "keep": 3, "samples": 0, "learning_rate": 1e-3, "schedule": "constant",
}  # fmt: skip
SHOP = {"layout": "demo", "vocab_size": 600, "slots": 8, "demo_users": 40, "demo_items": 30, "demo_examples": 160}
TOLERANCE = 1e-6  # relative, of a loss
APART = 1e-4  # the same where several processes add up otherwise than one
LONGEST = 120.0  # seconds that one start may take


def given(**options) -> list[str]:
    """Flags of a command line."""
    return [f"--{k}={v}" for k, v in options.items()]


def training(processes: int, **options) -> list[str]:
    """The command line of a run in so many processes."""
    program = ["launch.train"] if processes == 1 else ["launch.cluster.local", *given(processes=processes, grace=30), "--"]
    return [sys.executable, "-m", *program, *given(**options)]


def environment() -> dict[str, str]:
    """That of small runs: little optimisation, every program kept."""
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return os.environ | {"XLA_FLAGS": quick, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def losses(workdir: pathlib.Path) -> dict[int, list[float]]:
    """Every logged loss by step; a half-written last line counts for nothing."""
    found: dict[int, list[float]] = {}
    path = workdir / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found.setdefault(row["step"], []).append(row["loss"])
    return found


def whole(workdir: pathlib.Path) -> list[int]:
    """Steps of the checkpoints that Orbax has finished, the newest last."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*") if p.name.isdigit())


def damage(workdir: pathlib.Path, rng: random.Random) -> int | None:
    """Damages a file of the newest checkpoint; returns its step, None where no older one could stand in or it has no manifest."""
    steps = whole(workdir)
    if len(steps) < 2 or not all((workdir / "checkpoints" / str(s) / "manifest.json").exists() for s in steps[-2:]):
        return None
    files = (p for p in (workdir / "checkpoints" / str(steps[-1])).rglob("*") if p.is_file() and p.name != "manifest.json")
    path = rng.choice(sorted(p for p in files if p.stat().st_size))
    rng.choice((lambda: os.truncate(path, path.stat().st_size // 2), lambda: os.truncate(path, 0), path.unlink, lambda: flip(path)))()
    return steps[-1]


def flip(path: pathlib.Path) -> None:
    """Changes a bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def victim(process: subprocess.Popen, processes: int, rng: random.Random) -> int:
    """Whom a SIGKILL ends: the run, or one of its processes where a launcher has begun several."""
    if processes == 1:
        return process.pid
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(rng.choice(children)) if children else process.pid


class Trial:
    """The run that is broken again and again; `broken` lists promises that did not hold."""

    def __init__(self, flags_of_run: dict, workdir: pathlib.Path, log: pathlib.Path, seed: int, processes: int = 1):
        self.command, self.workdir, self.log, self.rng = training(processes, **flags_of_run, workdir=workdir), workdir, log, random.Random(seed)
        self.processes = processes
        self.rows: list[dict] = []
        self.broken: list[str] = []

    def start(self, last: bool, damaged: int | None) -> bool:
        """Starts once, ends it unless it is the last time, and checks where it went on from; returns whether the run is finished."""
        steps, before = whole(self.workdir), time.monotonic()
        with self.log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(self.command, env=environment(), stdout=out, stderr=subprocess.STDOUT)
            try:
                how, seconds = self._end(process, last)
            finally:
                process.kill()
        text = self.log.read_text(encoding="utf-8", errors="replace")
        expected = next((s for s in reversed(steps) if s != damaged), 0)
        found = re.search(r"^continuing at step (\d+)", text, re.MULTILINE)
        began = int(found[1]) if found else (0 if "mesh {" in text else None)  # None: ended before it began
        if began is not None and began != expected:
            self.broken.append(f"start {len(self.rows) + 1} went on from step {began} instead of {expected}")
        if damaged is not None and began is not None and f"checkpoint {damaged} is damaged" not in text:
            self.broken.append(f"start {len(self.rows) + 1} did not name the damaged checkpoint {damaged}")
        code = process.returncode
        told = {0, -signal.SIGKILL, -signal.SIGTERM} | ({2} if self.processes > 1 else set())  # a launcher says which one failed
        if code not in told or (last and code):
            self.broken.append(f"start {len(self.rows) + 1} ended with code {code}: {text.strip().splitlines()[-1:]}")
        self.rows.append({"from": began, "to": max(losses(self.workdir), default=0), "ended": how, "after": seconds, "code": code})
        self.rows[-1]["seconds"] = time.monotonic() - before
        return '"finished": true' in text

    def _end(self, process: subprocess.Popen, last: bool) -> tuple[str, float]:
        if last:
            process.wait(timeout=10 * LONGEST)
            return "finished", 0.0
        how, seconds, began = self.rng.choice(["SIGKILL"] * 3 + ["SIGTERM"]), self.rng.uniform(0.0, 1.5), time.monotonic()
        wanted, known = self.rng.random() < 0.9, len(losses(self.workdir))  # most ends fall into the steps, some into the start
        while wanted and process.poll() is None and len(losses(self.workdir)) in (known, 0) and time.monotonic() - began < LONGEST:
            time.sleep(0.01)
        time.sleep(seconds)
        if process.poll() is None:
            os.kill(victim(process, self.processes, self.rng) if how == "SIGKILL" else process.pid, getattr(signal, how))
        process.wait(timeout=LONGEST)
        return how, seconds

    def compare(self, truth: dict[int, list[float]]) -> float:
        """The largest relative difference of a loss; steps that are lost, repeated or of another loss are broken promises."""
        found, most = losses(self.workdir), 0.0
        for step, (loss,) in truth.items():
            if len(found.get(step, ())) != 1:
                self.broken.append(f"step {step} stands {len(found.get(step, ()))} times in metrics.jsonl")
                continue
            most = max(most, abs(found[step][0] - loss) / abs(loss))
        if surplus := found.keys() - truth.keys():
            self.broken.append(f"steps {sorted(surplus)} are in metrics.jsonl of the broken run only")
        if most > (TOLERANCE if self.processes == 1 else APART):
            self.broken.append(f"losses differ by {most:.2g} of themselves")
        return most


def suffer(folder: pathlib.Path, kills: int, steps: int, seed: int, processes: int = 1) -> dict:
    """Prepares, trains unbroken and broken, and returns the summary that is printed last."""
    run = MODEL | {"dataset": folder / "shop", "compilation_cache": folder / "xla", "steps": steps}
    if not (folder / "shop").exists():
        child.run("prepare", given(**SHOP, output=folder / "shop"))
    child.run("train", given(**run, workdir=folder / "unbroken"), environment())
    trial, rng, damaged, damages = Trial(run, folder / "broken", folder / "broken.log", seed, processes), random.Random(seed + 1), None, 0
    for _ in range(kills):
        if trial.start(False, damaged):
            break
        if damaged is not None and damaged in whole(folder / "broken") and trial.rows[-1]["from"] is None:
            continue  # ended before it was looked at: it is still there
        damaged = damage(folder / "broken", rng) if rng.random() < 0.3 else None
        damages += damaged is not None
    trial.start(True, damaged)
    most = trial.compare(losses(folder / "unbroken"))
    summary = {"kills": len(trial.rows) - 1, "processes": processes, "damaged_checkpoints": damages, "steps": steps, "largest_difference": most}
    return summary | {"starts": trial.rows, "broken_promises": trial.broken}


def table(rows: list[dict]) -> str:
    """The starts as text."""
    lines = [f"{'start':>5} {'from step':>9} {'to step':>8}  {'ended by':<9} {'code':>5} {'seconds':>8}"]
    for i, r in enumerate(rows, 1):
        began = "-" if r["from"] is None else r["from"]
        lines.append(f"{i:>5} {began:>9} {r['to']:>8}  {r['ended']:<9} {r['code']:>5} {r['seconds']:>8.1f}")
    return "\n".join(lines)


def main() -> dict:
    """Reads the flags, works in --folder, prints a table and the summary; raises UserError naming broken promises."""
    kills, steps = app.FLAGS.kills, app.FLAGS.chaos_steps or 40 * app.FLAGS.kills
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(app.FLAGS.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "broken").exists():
            raise UserError(f"--folder={folder} holds an earlier trial; give another, or remove it.")
        summary = suffer(folder, kills, steps, app.FLAGS.seed, app.FLAGS.chaos_processes)
    print(table(summary["starts"]))
    for text in summary["broken_promises"]:
        print(f"BROKEN: {text}")
    return summary


def checked() -> dict:
    """`main`; a broken promise ends with exit code 1, after the summary was printed."""
    summary = main()
    if summary["broken_promises"]:
        print(json.dumps(summary), flush=True)
        sys.exit(1)
    return summary


if __name__ == "__main__":
    app.run(checked, __doc__)
