"""One launcher started by another program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from rgjax.errors import UserError


def run(module: str, arguments: list[str], env: Mapping[str, str] | None = None) -> None:
    """`python -m launch.MODULE ARGUMENTS` to its end, unheard; raises UserError with its last word where it fails."""
    done = subprocess.run([sys.executable, "-m", f"launch.{module}", *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"launch.{module} failed"])[-1].removeprefix("error: "))
