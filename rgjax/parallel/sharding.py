"""The sharding policy: which mesh axis holds which axis of an array. No other file names mesh axes of arrays."""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rgjax.errors import UserError

# Logical axis of a parameter -> mesh axes. Rows of a matrix are spread over fsdp, heads and hidden units over tensor; a catalogue's table,
# which may be all there is, over both.
RULES = {
    "embed": ("fsdp",), "vocab": ("tensor",), "items": ("fsdp", "tensor"), "heads": ("tensor",), "kv_heads": ("tensor",), "mlp": ("tensor",),
    None: (),
}  # fmt: skip
BATCH = P(("data", "fsdp"))  # every device of these two axes sees its own rows


def parameters(model_state: nnx.State, mesh: Mesh) -> dict:
    """NamedShardings for every parameter of an abstract state, as a plain nested dict.

    An axis that its mesh axis does not divide stays whole (a vocabulary of 8,001 over 2, say).
    """

    def one(variable) -> NamedSharding:
        axes, shape = variable.get_metadata("axes"), variable.get_value().shape
        axes = (None,) * (len(shape) - len(axes)) + tuple(axes)  # stacked layers lead and stay whole
        fits = lambda a, n: RULES[a] if n % math.prod(mesh.shape[m] for m in RULES[a]) == 0 else ()
        spec = [found if len(found := fits(a, n)) > 1 else next(iter(found), None) for a, n in zip(axes, shape, strict=True)]
        return NamedSharding(mesh, P(*spec))

    leaves = jax.tree.map(one, model_state, is_leaf=lambda v: isinstance(v, nnx.Variable))
    return nnx.to_pure_dict(leaves)


def like(tree, reference: dict, mesh: Mesh):
    """Shardings of an optimizer state: moments as their parameter, everything else replicated.

    A leaf belongs to the parameter whose path ends its own path and whose shape it has.
    """
    by_path = {_names(path): s for path, s in jax.tree_util.tree_leaves_with_path(reference)}

    def one(path, leaf):
        names = _names(path)
        for start in range(len(names)):
            if names[start:] in by_path and leaf.ndim:
                return by_path[names[start:]]
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(one, tree)


def _names(path) -> tuple[str, ...]:
    return tuple(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def on_mesh(call, placed):
    """`call`, traced so that `by_rows` knows the mesh: that of the shardings `placed` (a tree)."""
    mesh = next((s.mesh for s in jax.tree.leaves(placed) if isinstance(s, NamedSharding)), None)

    @functools.wraps(call)
    def run(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return call(*args)

    return call if mesh is None else run


def by_rows(x: jax.Array) -> jax.Array:
    """Activations [B, ...], each device holding its own rows and nothing else of them; as they are outside `on_mesh`.

    Left to itself the compiler may cut the width over fsdp instead, as the embedding table is cut, and then add up activations in
    every product; so it gathers the matrices, which are smaller.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, P(*BATCH, *(None,) * (x.ndim - 1)))


def summed_over_rows(sums, whole: jax.Array, *arrays: jax.Array):
    """`sums(whole, *arrays)`, a tree of sums over the rows of `arrays` [B, ...]: each device sums its own rows, and all are added up once.

    So is the gradient of `whole`, even if `sums` reads it in a loop, where the compiler would add up the devices' gradients in every
    round; and it is gathered once, where it is cut over fsdp.
    """
    local = lambda whole, *arrays: jax.tree.map(lambda x: jax.lax.psum(x, BATCH[0]), sums(whole, *arrays))
    return _row_wise(local, P(), whole, *arrays) if _parts(arrays[0]) > 1 else sums(whole, *arrays)


def each_row(call, whole: jax.Array, *arrays: jax.Array):
    """`call(whole, *arrays)`, a tree of arrays [B, ...] each of whose rows is of the same row of `arrays` alone: each device makes its own, and
    the gradient of `whole` is added up and gathered once, as by `summed_over_rows`."""
    return _row_wise(call, BATCH, whole, *arrays) if _parts(arrays[0]) > 1 else call(whole, *arrays)


def rows_of(table: jax.Array, places: jax.Array) -> jax.Array:
    """`table[places]`, [..., D] for a table [V, D] and int32 places [B, ...], by rows. Left to itself the compiler looks up each device's part of the
    width, where the table is cut over fsdp, and on a mesh of both axes gathers those vectors of everybody's rows ("involuntary full
    rematerialization")."""
    return each_row(lambda table, places: table[places], table, places)


def _parts(x: jax.Array) -> int:
    """How many devices' rows `x` has; 1 where there is no mesh or they can't be told apart."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    return 1 if x.shape[0] % parts else parts


def _row_wise(local, out, whole, *arrays):
    specs = (P(), *(BATCH for _ in arrays))
    return jax.shard_map(local, in_specs=specs, out_specs=out, axis_names=set(BATCH[0]), check_vma=False)(whole, *arrays)


def batch(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Sharding of a batch's rows; `leading` unsharded axes stand before them (accumulation)."""
    return NamedSharding(mesh, P(*(None,) * leading, *BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, P())


def readable(params: dict) -> NamedSharding | None:
    """Where results computed from `params` have to lie so that every process can read them; None leaves it to the compiler."""
    where = jax.tree.leaves(params)[0].sharding if jax.process_count() > 1 else None
    return replicated(where.mesh) if isinstance(where, NamedSharding) else None


def check_batch(rows: int, mesh: Mesh, accumulate: int) -> None:
    """Raises UserError when the rows of a step do not divide among accumulation steps and devices."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    if rows % parts:
        raise UserError(
            f"--batch_size={rows} does not divide by {parts} (data x fsdp x accumulate); take a multiple of it or change --mesh."
        )


def micro_batches(rows: dict[str, np.ndarray], accumulate: int, together: int = 1) -> dict[str, np.ndarray]:
    """Arrays [n, ...] as [accumulate, n / accumulate, ...]: rows are dealt in turn, `together` neighbours at a time, so each micro-batch holds the
    same ones among any number of processes. Of an array with G rows for each of the shortest one's, these G stay together as well."""
    fewest = min(map(len, rows.values()))

    def dealt(x: np.ndarray) -> np.ndarray:
        neighbours = together * (len(x) // fewest)
        turns = x.reshape(len(x) // accumulate // neighbours, accumulate, neighbours, *x.shape[1:]).swapaxes(0, 1)
        return np.ascontiguousarray(turns).reshape(accumulate, len(x) // accumulate, *x.shape[1:])

    return {name: dealt(x) for name, x in rows.items()}


def put(local: dict[str, np.ndarray], mesh: Mesh, accumulate: int = 0, together: int = 1) -> dict[str, jax.Array]:
    """This process's rows as global arrays [rows, ...], or as those of `micro_batches`."""
    local = micro_batches(local, accumulate, together) if accumulate else local
    sharding = batch(mesh, leading=1 if accumulate else 0)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in local.items()}
