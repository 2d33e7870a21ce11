"""Causal attention within the examples of packed rows, forward and backward: every --attention that can be had here, beside torch's.

    python -m profiling.attention                         (16 rows of 1,024 positions, 4 examples each, 16 heads of width 64)
    python -m profiling.attention --room=16               (rows that might hold 16 examples)

`ours` is what --attention=auto takes here. torch's scaled_dot_product_attention reads the examples as a mask [B, 1, T, T]. Outputs and gradients
of queries, keys and values must agree before anything is timed. Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from launch import app
from profiling import bench
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("rows", 16, "Rows B.", lower_bound=1)
flags.DEFINE_integer("length", 1024, "Positions T of a row.", lower_bound=2)
flags.DEFINE_integer("examples", 4, "Examples of equal length in a row.", lower_bound=1)
flags.DEFINE_integer("room", 0, "Examples that a row might hold (the fused kernel works for as many); 0: as many as it does.", lower_bound=0)
flags.DEFINE_integer("heads", 16, "Query heads, and as many of keys and values.", lower_bound=1)
flags.DEFINE_integer("width", 64, "Width A of a head.", lower_bound=1)
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "Type of queries, keys and values.")

PEER = "peer"
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of the norm of the difference, relative


def inputs() -> list[np.ndarray]:
    """Queries, keys, values and the gradient of the output, float32 [B, T, H, A]."""
    f, rng = app.FLAGS, np.random.default_rng(0)
    if f.length % f.examples:
        raise UserError(f"--length={f.length} is not a multiple of --examples={f.examples}; change one.")
    if 0 < f.room < f.examples:
        raise UserError(f"--room={f.room} is below --examples={f.examples}; raise it, or leave it out.")
    return [rng.standard_normal((f.rows, f.length, f.heads, f.width), np.float32) for _ in range(4)]


def segment_ids() -> np.ndarray:
    """Which example each position is of, int32 [B, T], from 1."""
    f = app.FLAGS
    return np.broadcast_to(1 + np.arange(f.length, dtype=np.int32) // (f.length // f.examples), (f.rows, f.length))


def in_jax(kind: str, given: list[np.ndarray]) -> Callable[[], tuple]:
    """(output, gradients of queries, keys and values) of --attention=`kind`."""
    import jax
    import jax.numpy as jnp

    from rgjax.nn import attention, fused, segments

    f, ids = app.FLAGS, jnp.asarray(segment_ids())
    lengths, scale = segments.lengths(ids, f.room or f.examples), f.width**-0.5
    attend = {
        "plain": lambda q, k, v, seen: attention.attend(q, k, v, seen.bias(), scale),
        "rows": lambda q, k, v, seen: attention.attend_rows(q, k, v, seen.bias(), scale, causal=True),
        "cudnn": lambda q, k, v, seen: fused.attend_cudnn(q, k, v, seen, scale),
    }[kind]

    @jax.jit
    def run(ids, lengths, q, k, v, out_grad):
        out, back = jax.vjp(lambda q, k, v: attend(q, k, v, segments.Segments(ids, ids, True, lengths, lengths)), q, k, v)
        return out, *back(out_grad)

    arrays = [jnp.asarray(x, f.dtype) for x in given]
    return lambda: run(ids, lengths, *arrays)


def in_torch(given: list[np.ndarray]) -> Callable[[], tuple]:
    """The same of torch, [B, H, T, A] in between."""
    import torch
    from torch.nn import functional

    device, kind = bench.torch_device(), getattr(torch, app.FLAGS.dtype)
    q, k, v, out_grad = (torch.as_tensor(x).to(device, kind).transpose(1, 2).contiguous() for x in given)
    ids = torch.as_tensor(segment_ids().copy(), device=device)
    mask = ((ids[:, :, None] == ids[:, None, :]) & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=device).tril())[:, None]
    for x in (q, k, v):
        x.requires_grad_()

    def call():
        q.grad = k.grad = v.grad = None
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out.backward(out_grad)
        return tuple(x.detach().transpose(1, 2) for x in (out, q.grad, k.grad, v.grad))

    return call


def check(calls: dict[str, Callable[[], tuple]]) -> None:
    """Raises UserError unless outputs and gradients agree."""
    found = {name: [bench.as_numpy(value) for value in call()] for name, call in calls.items()}
    for name, values in found.items():
        for what, expected, got in zip(("output", "q", "k", "v"), found[PEER], values, strict=True):
            if not np.linalg.norm(got - expected) <= TOLERANCE[app.FLAGS.dtype] * np.linalg.norm(expected):
                raise UserError(f"The sides do not compute the same: {what} of {name} differs from the peer's; no times are told.")


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need("torch")
    bench.same_precision()

    from rgjax.config import ModelConfig
    from rgjax.nn import attention, fused

    f, given = app.FLAGS, inputs()
    config = ModelConfig(width=f.heads * f.width, heads=f.heads, dtype=f.dtype)
    why, taken = fused.missing(config), attention.chosen(config)
    if why:
        print(f"--attention=cudnn can't be had: {why}")
    calls = {kind: in_jax(kind, given) for kind in ("plain", "rows", *([] if why else ["cudnn"]))}
    calls = {"ours": calls.pop(taken), **calls, PEER: in_torch(given)}
    check(calls)
    found = bench.take_turns(calls, f.rounds)
    print(f"ours is --attention={taken}")
    print(bench.table(found, f.rows * f.length, "positions"))
    names = ("rows", "length", "examples", "room", "heads", "width", "dtype", "precision")
    return bench.summary(found, PEER, ours_is=taken, shape={n: getattr(f, n) for n in names})


if __name__ == "__main__":
    app.run(main, __doc__)
