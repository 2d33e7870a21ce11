"""Benchmarks run as a user runs them."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from environment import ROOT


@pytest.fixture(scope="session")
def benchmark(compilation_cache):
    """benchmark(module, *flags, code=0) -> (last line as an object, all output); with another code, (None, errors)."""

    def run(module: str, *flags, code: int = 0):
        env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": compilation_cache}
        command = [sys.executable, "-m", f"profiling.{module}", *flags]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return (json.loads(done.stdout.splitlines()[-1]), done.stdout) if code == 0 else (None, done.stderr)

    return run


@pytest.fixture
def sound():
    """sound(told, *sides): the last line has what all benchmarks tell, raw seconds of these sides, and the ratio that follows from them."""

    def check(told: dict, ours: str, peer: str, *others: str) -> None:
        assert {"ours", "peer", "ratio", "device", "versions", "rounds"} <= set(told)
        installed = {name for name in ("torch", "transformers") if importlib.util.find_spec(name)}  # torch: for the parity tests only
        assert {"jax", "flax"} | installed <= set(told["versions"])
        assert {ours, peer, *others} <= set(told["rounds"]) and all(len(times) == 3 for times in told["rounds"].values())
        pairs = sorted(b / a for a, b in zip(told["rounds"][ours], told["rounds"][peer], strict=True))
        assert told["ratio"] == pytest.approx({"lowest": pairs[0], "median": pairs[1], "highest": pairs[2]})

    return check
