"""A side of a comparison in a process of its own, which takes its turns when asked: started as its users start it, with an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable

DONE = "a turn is done\n"


class Elsewhere:
    """A call that another process makes, which `serve`s it; returns when it is done. To be closed, or used in a `with`."""

    def __init__(self, module: str, *more: str, env: dict[str, str] | None = None):
        """The process runs `module` with this command's flags and `more`, in the environment `env` (this one's if None)."""
        self._told = tempfile.TemporaryFile("w+")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._told}
        self._process = subprocess.Popen([sys.executable, "-m", module, *sys.argv[1:], *more], **pipes, text=True, env=env)

    def __call__(self) -> None:
        """Raises RuntimeError with what the process told last when it ended instead."""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line != DONE:
            self._process.wait()
            self._told.seek(0)
            raise RuntimeError(self._told.read()[-2000:])

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()
        self._told.close()


def serve(call: Callable[[], object]) -> None:
    """Makes the call whenever the process that started this one asks for it, until that ends."""
    from profiling.bench import wait

    for _ in sys.stdin:
        wait(call())
        print(DONE, end="", flush=True)
