"""Trains in several processes on this machine, each with its share of the devices, as one run.

    python -m launch.cluster.local --processes=2 -- --flagfile=configs/demo.cfg --dataset=DATASET --workdir=W --mesh=data:2

What stands after -- goes to launch.train. The first process is shown; the others write to W-process-1.log and so on. One that fails
ends all, with the last lines of its output. SIGTERM and Ctrl-C are handed on, so that the run is saved.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from absl import flags

from launch import app
from rgjax.errors import UserError

flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
flags.DEFINE_integer("grace", 120, "Seconds that a process has to save and end, after a signal or after another failed.", lower_bound=1)
SHOWN = 15  # last lines of a failed process


def begin(arguments: list[str], processes: int, logs: list[pathlib.Path | None]) -> list[subprocess.Popen]:
    """Starts the processes, each in its own group so that a signal to this one reaches them once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for process, log in enumerate(logs):
        env = os.environ | {"RGJAX_COORDINATOR": f"127.0.0.1:{port}", "RGJAX_PROCESSES": str(processes), "RGJAX_PROCESS": str(process)}
        out = log.open("w", encoding="utf-8") if log else None
        command = [sys.executable, "-u", "-m", "launch.train", *arguments]
        started.append(subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT if out else None, start_new_session=True))
    return started


def watch(started: list[subprocess.Popen], grace: float) -> int | None:
    """Waits for all; returns the number of the process that failed first, None where none did. Signals are handed on."""
    asked: list[float] = []  # when a signal was handed on, or a process failed

    def hand_on(number, _) -> None:
        asked.append(time.monotonic())
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    kept = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    failed = None
    try:
        while any(process.poll() is None for process in started):
            if failed is None and (ended := [i for i, process in enumerate(started) if process.poll()]):
                # A process that lost another ends with 1; the one that was lost, with something else.
                failed = next((i for i in ended if started[i].returncode != 1), ended[0])
                asked.append(time.monotonic())
            if asked and time.monotonic() - asked[0] > grace:
                for process in started:
                    process.kill()
            time.sleep(0.05)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    ended = [i for i, process in enumerate(started) if process.returncode]
    return next((i for i in ended if started[i].returncode != 1), failed if failed is not None else (ended or [None])[0])


def main(arguments: list[str]) -> None:
    """Starts, watches, and tells which process failed; the run's own summary is what the first process prints."""
    count = app.FLAGS.processes
    workdir = next((a.partition("=")[2] for a in arguments if a.startswith("--workdir=")), "")
    app.require(workdir=workdir)
    base = pathlib.Path(workdir)
    base.parent.mkdir(parents=True, exist_ok=True)
    logs = [None, *(base.with_name(f"{base.name}-process-{n}.log") for n in range(1, count))]
    started = begin(arguments, count, logs)
    try:
        failed = watch(started, app.FLAGS.grace)
    finally:
        for process in started:
            process.kill()
    if failed is not None:
        tail = logs[failed].read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:] if logs[failed] else []
        print("\n".join(f"[{failed}] {line}" for line in tail), file=sys.stderr, flush=True)
        where = f"its output is in {logs[failed]}" if logs[failed] else "its output is above"
        raise UserError(f"Process {failed} of {count} ended with code {started[failed].returncode} and took the others with it; {where}.")


if __name__ == "__main__":
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    handed = sys.argv[cut + 1 :]
    del sys.argv[cut:]
    app.run(lambda: main(handed), __doc__)
