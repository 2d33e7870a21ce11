"""Benchmarks run as a user runs them."""

import importlib.util
import json

import launched
import pytest


@pytest.fixture(scope="session")
def benchmark():
    """benchmark(module, *flags, code=0) -> (last line as an object, all output); with another code, (None, errors)."""

    def run(module: str, *flags, code: int = 0):
        done = launched.run(f"profiling.{module}", flags)
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
