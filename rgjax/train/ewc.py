"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): parameters that an earlier task depends on are held near
the values it left them with, by the curvature of its likelihood."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rgjax import trees
from rgjax.errors import UserError
from rgjax.parallel import mesh as mesh_lib
from rgjax.train.step import SumsFn

FILE = "ewc.safetensors"


def penalty(strength: float) -> Callable[[dict, dict], jax.Array]:
    """(trained, fixed) -> float32: strength / 2 * sum of F (theta - theta*)^2 over all trained parameters.

    This is equation 3 of the paper, added to the new task's loss per target token. `fixed["ewc"]` holds F as "fisher" and theta*
    as "anchor", each nested and placed like `trained`.
    """

    def total(trained: dict, fixed: dict) -> jax.Array:
        held = fixed["ewc"]
        pulls = jax.tree.map(lambda f, now, then: jnp.sum(f * jnp.square(now - then)), held["fisher"], trained, held["anchor"])
        return 0.5 * strength * sum(jax.tree.leaves(pulls))

    return total


def fisher(factory, sums_fn: SumsFn, trained: dict, frozen: dict, rows: Iterable[dict]) -> dict:
    """The diagonal of the empirical Fisher information of `trained`: float32, nested and placed like it.

    The mean over `rows` of the squared gradient of log p(reason | prompt), a sum over the reason's tokens, at the data's own reasons
    and without dropout. Each of `rows` is a batch of one example, the same on every device: squares of gradients summed over several
    examples would be another quantity. Beside the parameters two like them are held, the sum and one example's gradient.
    """

    def add(total: dict, trained: dict, frozen: dict, row: dict) -> dict:
        loss = lambda own: sums_fn(factory.model(trees.join(own, frozen)), row, None)["loss"]  # not smoothed without a key
        return jax.tree.map(lambda t, g: t + jnp.square(g), total, jax.grad(loss)(trained))

    where = jax.tree.map(lambda a: a.sharding, trained)
    add = jax.jit(add, donate_argnums=0, out_shardings=where)
    total, count = jax.jit(lambda p: jax.tree.map(jnp.zeros_like, p), out_shardings=where)(trained), 0
    for row in rows:
        total, count = jax.block_until_ready(add(total, trained, frozen, row)), count + 1  # or rows would queue up
    return jax.jit(lambda t: jax.tree.map(lambda a: a / max(count, 1), t), donate_argnums=0, out_shardings=where)(total)


def save(folder: str | pathlib.Path, found: dict, facts: dict[str, str]) -> None:
    """Writes {"fisher", "anchor"} whole or not at all, with `facts` as the file's metadata; the first process writes.

    Every process has to call it, and returns once the file is there. The writer's host holds all of it for that time.
    """
    arrays = {path: _whole(leaf) for path, leaf in trees.flat(found)}
    if jax.process_index() == 0:
        fresh = pathlib.Path(folder) / f"{FILE}.tmp"
        save_file(arrays, fresh, metadata=facts)
        os.replace(fresh, pathlib.Path(folder) / FILE)
    mesh_lib.meet("ewc written")


def _whole(leaf: jax.Array) -> np.ndarray:
    """All of an array, wherever its parts lie."""
    whole = leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True)
    return np.ascontiguousarray(jax.device_get(whole))


def exists(folder: str | pathlib.Path) -> bool:
    """Whether `load` has something to read; the same answer in every process."""
    return mesh_lib.anywhere((pathlib.Path(folder) / FILE).is_file())


def load(folder: str | pathlib.Path, like: dict) -> dict:
    """{"fisher", "anchor"}, each with the paths and shardings of the arrays `like`; each process reads the slices its devices hold.

    Raises UserError when the file is missing, damaged or of other parameters.
    """
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"{path} is missing and the run goes on with --ewc; restore it, or start anew in another --workdir.")
    try:
        with safe_open(path, framework="numpy") as file:
            return {part: trees.nested((n, _read(file, f"{part}.{n}", leaf)) for n, leaf in trees.flat(like)) for part in ("fisher", "anchor")}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({str(error).splitlines()[0]}); restore it, or start anew in another --workdir.") from None


def _read(file, name: str, leaf: jax.Array) -> jax.Array:
    part = file.get_slice(name)
    if tuple(part.get_shape()) != leaf.shape:
        raise ValueError(f"{name} has shape {part.get_shape()}, not {list(leaf.shape)}")
    read = part.__getitem__ if leaf.ndim else lambda _: file.get_tensor(name)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, read)
