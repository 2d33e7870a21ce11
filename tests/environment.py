"""Where the project lies, how launchers are compiled for tests, and how one is killed."""

import pathlib
import time
from importlib import metadata

ROOT = pathlib.Path(__file__).parents[1]
# Most of the time goes to compiling: a third of it or less remains where nothing is optimized and fusions are written the plain way.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
ENDED = " --xla_cpu_use_fusion_emitters=false"  # with jaxlib 0.11, which ends a program that gives it, without a word
QUICK += ENDED if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11) else ""
SMALL = ("--layers=1", "--width=32", "--heads=2", "--rounds=3")  # flags of a quick benchmark


def kill_at(process, workdir, step: int, how: int) -> None:
    """Sends a signal once `step` stands in the run's metrics."""
    path, end = pathlib.Path(workdir, "metrics.jsonl"), time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and any(f'"step": {step},' in line for line in path.read_text().splitlines()):
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    process.send_signal(how)
    process.communicate(timeout=120)
