"""Trains in several processes on this machine, each with its share of the GPUs, as one run.

    python -m launch.cluster.local --processes=2 -- --flagfile=configs/demo.cfg                   (the demo's data, into runs/local)
    python -m launch.cluster.local --processes=2 -- --flagfile=configs/llmxrec_small.cfg --dataset=DATASET --workdir=W --mesh=fsdp:2

What stands after -- goes to launch.train. The first process is shown; the others write to W-process-1.log and so on. One that fails
ends all, with the last lines of its output. SIGTERM and Ctrl-C are handed on, so that the run is saved.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from absl import flags

from launch import app, demo
from rgjax.errors import UserError
from rgjax.parallel import gpus

flags.DEFINE_integer("processes", 2, "How many processes.", lower_bound=1)
flags.DEFINE_integer("grace", 120, "Seconds that a process has to save and end, after a signal or after another failed.", lower_bound=1)
SHOWN = 15  # last lines of a failed process
NOTICED = 10.0  # seconds within which a process that trains sees that another is gone, and says so
WORKDIR = "runs/local"  # where none is given
_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when its parent ends


def completed(arguments: list[str]) -> tuple[list[str], str]:
    """(launch.train's arguments, with the demo's dataset and a workdir where they and their flagfiles name none; the workdir).

    Raises UserError where they can't be read.
    """
    found = flags.FlagValues()
    for name in ("workdir", "dataset", "source"):
        flags.DEFINE_string(name, "", "", flag_values=found)
    found.set_gnu_getopt(True)  # or the value of a flag that is not known here would end the flags
    try:
        found(["", *found.read_flags_from_files(arguments)], known_only=True)
    except flags.Error as error:
        raise UserError(str(error).replace("\n", " ")) from None
    workdir = found.workdir or WORKDIR
    added = [] if found.workdir else [f"--workdir={workdir}"]
    if not (found.dataset or found.source or pathlib.Path(workdir, "config.json").is_file()):
        added.append(f"--dataset={demo.dataset()}")
    return [*arguments, *added], workdir


def begin(arguments: list[str], logs: list[pathlib.Path | None], started: list[subprocess.Popen]) -> None:
    """Starts the processes, each in its own group so that a signal to this one reaches them once; SIGTERM tells them when this one is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seen = gpus.visible(os.environ)
    tell = ctypes.CDLL(None).prctl if sys.platform == "linux" else lambda *_: 0
    for process, log in enumerate(logs):
        env = os.environ | {"RGJAX_COORDINATOR": f"127.0.0.1:{port}", "RGJAX_PROCESSES": str(len(logs)), "RGJAX_PROCESS": str(process)}
        env |= {"CUDA_VISIBLE_DEVICES": ",".join(gpus.shared(seen, len(logs), process))} if seen else {}
        out = log.open("w", encoding="utf-8") if log else None
        command = [sys.executable, "-u", "-m", "launch.train", *arguments]
        how = {"stdout": out, "stderr": subprocess.STDOUT if out else None, "start_new_session": True}
        started.append(subprocess.Popen(command, env=env, preexec_fn=lambda: tell(_PDEATHSIG, signal.SIGTERM), **how))


@contextlib.contextmanager
def handing_on(started: list[subprocess.Popen]) -> Iterator[list[float]]:
    """SIGTERM and Ctrl-C go to those of `started` that live; the list given says when."""
    asked: list[float] = []

    def hand_on(number, _) -> None:
        asked.append(time.monotonic())
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    kept = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def watch(started: list[subprocess.Popen], asked: list[float], grace: float) -> int | None:
    """Waits for all, until `grace` seconds after the first of `asked`; returns the number of the process that failed first, None where none did."""
    failed, since = None, math.inf
    while any(process.poll() is None for process in started):
        if failed is None and (failed := blamed([process.poll() for process in started])) is not None:
            since = time.monotonic()
            asked.append(since)
        for process in started:
            if asked and time.monotonic() - asked[0] > grace:
                process.kill()
            elif time.monotonic() - since > NOTICED and process.poll() is None:
                process.send_signal(signal.SIGTERM)  # it may still wait for the one that is gone to join
        time.sleep(0.05)
    return blamed([process.returncode for process in started]) if failed is None else failed


def blamed(codes: list[int | None]) -> int | None:
    """Which of the processes that have failed by now pulled the others down. One that lost another ends with 1, or by SIGABRT where JAX's service
    went with the first; so either is only blamed where there is no other."""
    followed = {1: 1, -signal.SIGABRT: 2}
    return min((i for i, code in enumerate(codes) if code), key=lambda i: followed.get(codes[i], 0), default=None)


def main(arguments: list[str]) -> None:
    """Starts, watches, and tells which process failed; the run's own summary is what the first process prints."""
    count = app.FLAGS.processes
    if len(seen := gpus.visible(os.environ)) % count:
        raise UserError(f"--processes={count} does not share out {len(seen)} GPUs; give a number that does, or JAX_PLATFORMS=cpu in the environment.")
    arguments, workdir = completed(arguments)
    base = pathlib.Path(workdir)
    base.parent.mkdir(parents=True, exist_ok=True)
    logs = [None, *(base.with_name(f"{base.name}-process-{n}.log") for n in range(1, count))]
    started: list[subprocess.Popen] = []
    with handing_on(started) as asked:
        try:
            begin(arguments, logs, started)
            failed = watch(started, asked, app.FLAGS.grace)
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
