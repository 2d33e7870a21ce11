"""Which GPUs a process may use, before JAX has begun."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence


def visible(env: Mapping[str, str]) -> list[str]:
    """Their names for CUDA_VISIBLE_DEVICES: those that it holds or, without it, all NVIDIA ones of this machine; none where JAX_PLATFORMS is cpu."""
    if env.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in env:
        return [name for name in env["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(len(list(pathlib.Path("/dev").glob("nvidia[0-9]*"))))]


def shared(names: Sequence, parts: int, part: int) -> list:
    """The `part`-th of so many equal parts of neighbours; none where they do not divide."""
    each, left = divmod(len(names), parts)
    return [] if left else list(names[part * each : (part + 1) * each])
