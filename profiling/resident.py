"""Peak memory of a call: of the accelerator's allocators, or of this process."""

from __future__ import annotations

import ctypes
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable


def status() -> dict[str, int]:
    """Bytes of VmHWM, VmRSS, RssAnon and RssFile of this process (Linux)."""
    text = pathlib.Path("/proc/self/status").read_text()
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB", text)}


def peak(make: Callable[[], Callable[[], object]], calls: int = 3) -> int:
    """Most bytes held while the call that `make` gives runs for the last of `calls` times, its data included.

    On a GPU the mark of JAX's or torch's allocator, in which loading and compiling count too, since JAX's can't be reset; else resident
    memory above what the process held before `make`, in which what a compiler or an allocator did not give back counts too. To be
    called in a process of its own, before anything else computes.
    """
    import jax

    from profiling.bench import wait

    wait(jax.numpy.zeros(8) + 1)  # both libraries have started
    before, call = status()["VmRSS"], make()
    for n in range(calls):
        if n == calls - 1:
            ctypes.CDLL(None).malloc_trim(0)  # what compiling used and gave back
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        wait(call())
    if jax.default_backend() != "gpu":
        return status()["VmHWM"] - before
    torch, own = sys.modules.get("torch"), jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    return max(own, torch.cuda.max_memory_allocated() if torch and torch.cuda.is_initialized() else 0)


def in_process(module: str, *more: str, env: dict[str, str] | None = None) -> dict:
    """The last line of this command with further flags, run in a process of its own (with the environment `env`, this one's if None)."""
    done = subprocess.run([sys.executable, "-m", module, *sys.argv[1:], *more], capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])
