"""Flags of XLA that the project's files give it: it ends a program at one that it does not know, and renames them often."""

import os
import pathlib
import re
import subprocess
import sys

import environment
import jax
import pytest

from rgjax.parallel import cluster
from rgjax.train import step

ROOT = pathlib.Path(__file__).parents[2]
FLAG = re.compile(r"--(xla_[a-z0-9_]+)(?:=([A-Za-z0-9_.]+))?")
TOLD = (".py", ".md", ".cfg", ".toml", ".sbatch", ".yaml", ".sh", "Makefile")


def named() -> dict[str, str]:
    """Every flag in a file of the project, with a value that it is given, or 1."""
    found = {}
    for folder in ("rgjax", "launch", "profiling", "configs", "docs", "tests", "Makefile", "pyproject.toml", "README.md"):
        place = ROOT / folder
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.name.endswith(TOLD) and path != pathlib.Path(__file__):
                found |= {name: value or found.get(name, "1") for name, value in FLAG.findall(path.read_text(encoding="utf-8"))}
    return found


def parsed(flags: str) -> subprocess.CompletedProcess:
    code = "import jax, jax.numpy as jnp; jax.jit(lambda x: x + 1)(jnp.zeros(2)).block_until_ready()"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_every_flag_is_known_to_this_jaxlib():
    flags = named()
    flags = {name: value for name, value in flags.items() if name not in environment.ENDED or name in environment.QUICK}
    assert "xla_force_host_platform_device_count" in flags
    done = parsed(" ".join(f"--{name}={value}" for name, value in flags.items()))
    assert done.returncode == 0, done.stderr[-500:]


def test_a_stale_flag_would_be_noticed():
    done = parsed("--xla_gpu_enable_custom_fusions=true")  # of 2024
    assert done.returncode != 0 and "xla_gpu_enable_custom_fusions" in done.stderr


def test_the_options_of_a_training_step_are_known_to_this_jaxlib():
    compiled = jax.jit(lambda x: x + 1, compiler_options=step.GPU_OPTIONS)(jax.numpy.zeros(2))
    assert compiled.tolist() == [1, 1]
    with pytest.raises(Exception, match="xla_gpu_enable_custom_fusions"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_enable_custom_fusions": True})(jax.numpy.zeros(2))


def test_the_level_reaches_jax():
    before = jax.config.jax_optimization_level
    try:
        cluster.start(optimization_level="O1")
        assert jax.config.jax_optimization_level == "O1"
        cluster.start()
        assert jax.config.jax_optimization_level == "O1"  # UNKNOWN leaves what is set
    finally:
        jax.config.update("jax_optimization_level", before)
