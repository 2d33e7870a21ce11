"""What two choices inside the training step are worth on this device.

    python -m profiling.step --dataset=DATASET --flagfile=configs/llmxrec_small.cfg

Times the flagfile's whole training step on one real batch with --attention=plain and with --attention=rows, and a gated feed-forward
with its gradients once through `rgjax.nn.linear` and once through einsum. The two sides take turns, so that a
machine's load meets both; compilation is told apart, medians are printed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from launch import app
from profiling import workload
from profiling.bench import take_turns
from profiling.workload import CONFIGS, Workload


def step_call(sections: dict, attention: str) -> Callable[[], object]:
    """One training step on the run's first batch, its state carried on from call to call."""
    work = Workload.open(sections | {"model": dataclasses.replace(sections["model"], attention=attention)})
    run, batch, (state, fixed) = work.step(), work.put(work.first), work.begin()
    held = [state]

    def call():
        held[0], metrics = run(held[0], fixed, batch)
        return held[0], metrics

    return call


def feed_forward_calls(rows: int, length: int, width: int, hidden: int) -> dict[str, Callable[[], object]]:
    """A gated feed-forward and its gradients through `linear` and through einsum, on random activations [rows, length, width]."""
    import jax
    import jax.numpy as jnp

    from rgjax.nn.linear import linear

    keys, shapes = jax.random.split(jax.random.key(0), 4), ((rows, length, width), (width, hidden), (width, hidden), (hidden, width))
    arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def side(product):
        def loss(x, w_in, w_gate, w_out):
            return jnp.sum(product(jax.nn.silu(product(x, w_gate)) * product(x, w_in), w_out) ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
        return lambda: compiled(*arrays)

    return {"linear": side(linear), "einsum": side(lambda x, w: jnp.einsum("btd,df->btf", x, w))}


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    sections = workload.sections()
    app.require(dataset=sections["input"].dataset)

    from rgjax.nn.feedforward import hidden_width

    steps = {f"step, attention {a}": step_call(sections, a) for a in ("plain", "rows")}
    shape = (sections["input"].batch_size, sections["input"].length, sections["model"].width, hidden_width(sections["model"]))
    products = feed_forward_calls(*shape)
    found = take_turns(steps, app.FLAGS.rounds) | take_turns({f"feed-forward, {n}": c for n, c in products.items()}, app.FLAGS.rounds)
    for name, times in found.items():
        print(f"{name:<24} {times['seconds'] * 1000:>9.1f} ms   (first call with compilation {times['compile_seconds']:.1f} s)")
    return {"medians": found} | workload.facts()


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
