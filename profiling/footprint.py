"""Bytes that a training step holds, by what they are for, and the largest batch whose bytes fit. Nothing is computed."""

from __future__ import annotations

import math

from profiling.workload import Workload


def parts(work: Workload) -> dict[str, int]:
    """Bytes a device of the step's `parameters`, `optimizer` state, their `average`, the `batch` and `activations` (see above)."""
    import jax

    (state, fixed, batch), own = work.abstract(), lambda tree: sum(on_device(leaf) for leaf in jax.tree.leaves(tree))
    found = {"parameters": own(state.params) + own(fixed["weights"]), "optimizer": own(state.opt_state), "average": own(state.ema)}
    return found | {"batch": own(batch), "activations": activations(work)}


def on_device(leaf) -> int:
    """Bytes of an abstract array that one device holds."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def activations(work: Workload) -> int:
    """Bytes a device that the forward pass of one micro-batch leaves for the backward pass, beside what the step is given."""
    import jax

    from rgjax.train.step import make_loss

    state, fixed, batch = work.abstract()
    first = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype, sharding=without_accumulation(s.sharding)), batch)
    loss = make_loss(work.factory, work.loss, work.tuning.penalty)

    def kept(params, fixed, batch, key):
        _, backward, _ = jax.vjp(lambda params: loss(params, fixed, batch, key), params, has_aux=True)
        return jax.tree.leaves(backward)

    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(kept).trace(state.params, fixed, first, key)
    given = set(map(id, traced.jaxpr.jaxpr.invars))
    placed = traced.lower().compile().output_shardings
    leaves = zip(traced.jaxpr.jaxpr.outvars, placed, strict=True)
    made = {id(v): (v.aval, s) for v, s in leaves if id(v) not in given and not hasattr(v, "val")}  # no literals
    return sum(on_device(jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=s)) for aval, s in made.values())


def without_accumulation(sharding):
    """The sharding of one micro-batch, from that of all."""
    import jax

    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*sharding.spec[1:]))


def largest(need, unit: int, limit: int, most: int, start: int = 1) -> tuple[int, dict[int, int]]:
    """(the largest multiple of `unit`, at most `most`, whose `need(rows)` is within `limit`, 0 if none; all needs that were looked at).

    `need` grows with the rows, nearly on a line: two of three guesses lie on it, through what was looked at last, the third in the
    middle of what is left. `start` units come first.
    """
    seen: dict[int, int] = {}
    low, high, guess = 0, most // unit + 1, min(max(1, start), most // unit)
    while high - low > 1:
        seen[guess] = need(guess * unit)
        low, high = (guess, high) if seen[guess] <= limit else (low, guess)
        if len(seen) < 2:
            guess = min(2 * guess, high - 1) if low else 1
        elif len(seen) % 3 == 1:
            guess = (low + high) // 2
        else:
            (a, need_a), (b, need_b) = list(seen.items())[-2:]
            guess = a + int((limit - need_a) * (b - a) / ((need_b - need_a) or 1))
        guess = min(max(guess, low + 1), high - 1)
    return low * unit, {units * unit: bytes_ for units, bytes_ in seen.items()}
