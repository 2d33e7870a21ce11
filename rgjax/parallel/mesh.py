"""The device mesh, and what processes agree on over it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from rgjax.errors import UserError

AXES = ("data", "fsdp", "tensor")


def parse(text: str) -> dict[str, int]:
    """'data:2,fsdp:2' -> sizes of all axes, 1 where not named; raises UserError on an unknown axis or size."""
    sizes = dict.fromkeys(AXES, 1)
    for part in filter(None, text.split(",")):
        name, _, size = part.partition(":")
        if name not in sizes or not re.fullmatch(r"-1|[1-9][0-9]*", size):
            raise UserError(f"--mesh={text} is not understood at '{part}'; write axes {', '.join(AXES)} with sizes, as data:2,fsdp:2.")
        sizes[name] = int(size)
    return sizes


def make(text: str) -> jax.sharding.Mesh:
    """A mesh with axes data, fsdp and tensor over the devices, '' as `TrainConfig.mesh` says; raises UserError when it needs more than there are."""
    text = text or ("data:-1" if jax.process_count() > 1 else "data:1")
    sizes, devices = parse(text), jax.devices()
    free = [n for n, s in sizes.items() if s == -1]
    known = math.prod(s for s in sizes.values() if s > 0)
    if len(free) > 1:
        raise UserError(f"--mesh={text} leaves two axes free; give -1 to one axis only.")
    if free:
        if len(devices) % known:
            raise UserError(f"--mesh={text} does not divide {len(devices)} devices; change its sizes.")
        sizes[free[0]] = len(devices) // known
    total = math.prod(sizes.values())
    if total > len(devices) or (total < len(devices) and jax.process_count() > 1):
        raise UserError(f"--mesh={text} takes {total} devices and there are {len(devices)}; change the mesh.")
    local = len(devices) // jax.process_count()
    if jax.process_count() > 1 and local % sizes["tensor"] and sizes["tensor"] % local:
        raise UserError(f"--mesh={text} cuts rows of {sizes['tensor']} devices (tensor) out of processes of {local}; one must divide the other.")
    shape = tuple(sizes[a] for a in AXES)
    grid = np.asarray(devices[:total]).reshape(shape)
    return jax.sharding.Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def share(mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """(k, n): this process feeds the k-th of n equal parts of a batch's rows; those that hold one row's devices together feed the same."""
    together = max(1, mesh.shape["tensor"] * jax.process_count() // mesh.size)
    return jax.process_index() // together, jax.process_count() // together


def meet(where: str) -> None:
    """Returns once every process has come here; `where` is the same text in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def most(values: Sequence[float]) -> list[float]:
    """Of each value the greatest that any process has: the same answer in all of them."""
    mine = np.asarray(values, np.float32)
    return mine.tolist() if jax.process_count() == 1 else multihost_utils.process_allgather(mine).max(0).tolist()


def anywhere(flag: bool) -> bool:
    """Whether `flag` is set in any process: the same answer in all of them, so that they do the same."""
    return bool(most([flag])[0])
