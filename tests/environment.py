"""Where the project lies, and how launchers are compiled for tests."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # most of the time goes to compiling
