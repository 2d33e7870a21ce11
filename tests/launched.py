"""Launchers in processes of their own that begin with their libraries imported, which takes longer than most runs of tests.

They are forked, at the start of `python -m launch.NAME`, from one process that has imported the libraries and done nothing else with
them. What tests hold of such a process is used like a subprocess.Popen. tests/tasks/test_cli.py starts launchers as a user does.
"""

import atexit
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile

from environment import QUICK, ROOT

SHOP = [f"rgjax.tasks.shop.{name}" for name in ("behaviour", "bundle", "ranking", "recommend")]
LIBRARIES = ["rgjax.tasks.training", *SHOP, "launch.app"]


class Launched:
    """`python -m MODULE FLAGS`, running on `devices` of the CPU; `flags` are a list of arguments or {name: value}."""

    _server = multiprocessing.get_context("forkserver")
    _server.set_forkserver_preload(LIBRARIES)

    def __init__(self, module: str, flags: list | dict, devices: int = 1, **env: str):
        env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count={devices}"} | env
        flags = [f"--{k}={v}" for k, v in flags.items()] if isinstance(flags, dict) else list(map(str, flags))
        if module == "launch.train":  # others ask the run
            flags = [f"--compilation_cache={env['JAX_COMPILATION_CACHE_DIR']}", *flags]
        self.args, self._told = [module, *flags], [tempfile.NamedTemporaryFile() for _ in range(2)]
        self._process = self._server.Process(target=_launch, args=(module, flags, env, [file.name for file in self._told]))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, which: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """(stdout, stderr) once it has ended; raises subprocess.TimeoutExpired where it has not."""
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return tuple(open(file.name, encoding="utf-8").read() for file in self._told)


def run(module: str, flags: list | dict, devices: int = 1, **env: str) -> subprocess.CompletedProcess:
    """The end of what `Launched` begins; it is killed if it takes too long."""
    process = Launched(module, flags, devices, **env)
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def launch(name: str, **flags) -> subprocess.CompletedProcess:
    """The end of launch.NAME."""
    return run(f"launch.{name}", flags)


def finish(process: Launched) -> dict:
    """What a process that ends well printed last, as an object."""
    out, errors = process.communicate(timeout=300)
    return result(subprocess.CompletedProcess([], process.returncode, out, errors))


def result(done):
    """What a successful launcher printed last, as an object."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refused(done, *words) -> str:
    """A user's mistake: exit code 2, one sentence on stderr, which is returned, nothing on stdout."""
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(told) == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1] == told[0] and not done.stdout, done.stdout
    assert all(word in told[0] for word in words), told[0]
    return told[0]


def _launch(module: str, flags: list[str], env: dict[str, str], told: list[str]) -> None:
    """What the forked process does."""
    import jax

    for number, path in enumerate(told, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    for name in ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):  # which JAX has read
        jax.config.update(name.lower(), env.get(name))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.argv = [module, *flags]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
