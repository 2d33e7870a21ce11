"""Cross entropy over a large vocabulary, forward and backward: in chunks, as training computes it, beside whole float32 logits.

    python -m profiling.loss_head                         (16 rows of 128 hidden states of width 512, 32,000 tokens)
    python -m profiling.loss_head --target_share=0.3

Sides: rgjax.train.loss; the same in JAX with all float32 logits at once; torch's F.cross_entropy over a linear layer. All give the loss and
the gradients of hidden states and output matrix, which must agree before anything is timed. --target_share of the positions, the last of
each row, carry loss: a prompt carries none. Temporary memory is what XLA's compiled programs say they need beside inputs and outputs.
Needs torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from launch import app
from profiling import bench
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("rows", 16, "Rows B.", lower_bound=1)
flags.DEFINE_integer("length", 128, "Positions T of a row.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Width D of the hidden states.", lower_bound=1)
flags.DEFINE_integer("vocab_size", 32_000, "Tokens V.", lower_bound=2)
flags.DEFINE_float("target_share", 1.0, "Share of the positions that carry loss.", lower_bound=0.01, upper_bound=1.0)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Type of hidden states; the matrix is cast to it, the loss is float32.")

OURS, PLAIN, PEER = "ours", "plain JAX", "peer"
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # relative, of the loss; of gradients relative to their largest entry


@dataclasses.dataclass
class Side:
    """`call()` returns (loss sum, gradient of the hidden states [B, T, D], of the matrix [V, D]); `memory` in bytes, 0 if unknown."""

    call: Callable[[], tuple]
    memory: int = 0


def inputs() -> tuple[np.ndarray, ...]:
    """Hidden states [B, T, D] and matrix [V, D] float32, targets and weights [B, T] int32."""
    f, rng = app.FLAGS, np.random.default_rng(0)
    shape = (f.rows, f.length)
    weights = np.broadcast_to(np.arange(f.length) >= f.length - max(1, round(f.target_share * f.length)), shape).astype(np.int32)
    hidden, head = rng.standard_normal((*shape, f.width), np.float32), rng.standard_normal((f.vocab_size, f.width), np.float32)
    return hidden, head / np.float32(f.width**0.5), rng.integers(0, f.vocab_size, shape, dtype=np.int32), weights


def plain(hidden_BTD, head_VD, targets_BT, weights_BT):
    """The loss sum with all float32 logits at once."""
    import jax
    import jax.numpy as jnp

    logits = jnp.einsum("btd,vd->btv", hidden_BTD, head_VD.astype(hidden_BTD.dtype), preferred_element_type=jnp.float32)
    picked = jnp.take_along_axis(logits, targets_BT[..., None], axis=-1)[..., 0]
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - picked) * weights_BT)


def in_jax(loss, given: tuple) -> Side:
    """A side of `loss(hidden, head, targets, weights)`, compiled."""
    import jax

    hidden, *rest = map(jax.numpy.asarray, given)
    arrays = (hidden.astype(app.FLAGS.dtype), *rest)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arrays).compile()
    used = run.memory_analysis()

    def call():
        value, grads = run(*arrays)
        return value, *grads

    return Side(call, used.temp_size_in_bytes if used else 0)


def in_torch(given: tuple) -> Side:
    """F.cross_entropy over float32 logits of a linear layer."""
    import torch
    from torch.nn import functional

    device, kind = bench.torch_device(), getattr(torch, app.FLAGS.dtype)
    hidden, head, targets, weights = (torch.as_tensor(x).to(device) for x in given)
    hidden, head = hidden.to(kind).requires_grad_(), head.requires_grad_()
    labels = torch.where(weights > 0, targets.long(), -100).flatten()

    def call():
        hidden.grad = head.grad = None
        logits = functional.linear(hidden, head.to(kind)).float()
        loss = functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")
        loss.backward()
        return loss.detach(), hidden.grad, head.grad

    return Side(call)


def check(sides: dict[str, Side]) -> dict[str, float]:
    """Each side's loss sum; raises UserError unless losses and gradients agree."""
    found = {name: [bench.as_numpy(value) for value in side.call()] for name, side in sides.items()}
    for name, values in found.items():
        for what, ours, theirs in zip(("losses", "gradients of hidden states", "gradients of the matrix"), found[OURS], values, strict=True):
            if np.abs(ours - theirs).max() > TOLERANCE[app.FLAGS.dtype] * np.abs(ours).max():
                raise UserError(f"The sides do not compute the same: the {what} of {name} differ from ours; no times are told.")
    return {name: float(values[0]) for name, values in found.items()}


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need("torch")
    bench.same_precision()

    from rgjax.train.loss import cross_entropy_sums

    given = inputs()
    sides = {OURS: in_jax(lambda *args: cross_entropy_sums(*args)[0], given), PLAIN: in_jax(plain, given), PEER: in_torch(given)}
    losses = check(sides)
    found = bench.take_turns({name: side.call for name, side in sides.items()}, app.FLAGS.rounds)
    for name, side in sides.items():
        found[name] |= {"temporary_bytes": side.memory} if side.memory else {}
    print(bench.table(found, int(given[-1].sum()), "target tokens"))
    for name in (OURS, PLAIN):
        print(f"{name}: {sides[name].memory / 1e6:,.1f} MB of temporary memory")
    names = ("rows", "length", "width", "vocab_size", "target_share", "dtype", "precision")
    plainly = bench.ratio(found[OURS]["rounds"], found[PLAIN]["rounds"])
    return bench.summary(found, PEER, losses=losses, ratio_to_plain=plainly, shape={n: getattr(app.FLAGS, n) for n in names})


if __name__ == "__main__":
    app.run(main, __doc__)
