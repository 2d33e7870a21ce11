"""Speed of the input pipeline alone, beside that of the training step it has to feed.

    python -m profiling.input --dataset=DATASET --flagfile=configs/demo.cfg

Reads batches as launch.train does, in every layout (packed, in length buckets) and with 0 and 2 worker processes, and times windows
of them after a warm-up; then times training steps of the flagfile's model on batches that are ready. The medians of the windows
are printed. The pipeline should outrun the step at least five times: then it never matters. A ratio below that on an accelerator calls for
--workers. Rates count real tokens (encoder included), never padding.

Measured on two cores shared with another training run: configs/llmxrec_small.cfg 192,000 tokens/s packed and 423,000 in buckets without
workers, 328,000 and 380,000 with two; configs/demo.cfg 71,000 and 133,000, with two 143,000 and 244,000. On such cores that is
20 to 290 times the training step.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import time

from absl import flags

from launch import app
from rgjax.config import DecodeConfig, InputConfig, ModelConfig, OptimizerConfig, TrainConfig

REQUIRED = 5.0
LAYOUTS = (("packed", 0), ("packed", 2), ("bucketed", 0), ("bucketed", 2))
flags.DEFINE_integer("windows", 5, "Windows whose median is taken.", lower_bound=5)
flags.DEFINE_integer("batches", 40, "Batches in one window.", lower_bound=1)
flags.DEFINE_integer("timed_steps", 20, "Training steps timed.", lower_bound=5)


def count(batch: dict) -> dict[str, int]:
    """Real tokens, target tokens, examples and slots (padding included) of a batch."""
    ids = [batch[name] for name in ("segment_ids", "encoder_segment_ids") if name in batch]
    return {
        "tokens": int(sum((i > 0).sum() for i in ids)),
        "target_tokens": int(batch["weights"].sum()),
        "examples": int(ids[0].max(axis=1).sum()),
        "slots": sum(i.size for i in ids),
    }


def total(batches: list[dict]) -> dict[str, int]:
    """The counts of several batches together."""
    counts = [count(b) for b in batches]
    return {name: sum(c[name] for c in counts) for name in counts[0]}


def time_layout(stream, windows: int, batches: int) -> dict[str, float]:
    """Medians over windows of the rates of an input stream."""
    began = time.perf_counter()
    list(itertools.islice(stream, max(batches, 8)))  # starts workers, fills buffers and caches
    warm_up, found = time.perf_counter() - began, []
    for _ in range(windows):
        began = time.perf_counter()
        window = list(itertools.islice(stream, batches))
        seconds = time.perf_counter() - began  # counting is left out
        sums = total(window)
        rates = {f"{name}_per_second": sums[name] / seconds for name in ("tokens", "target_tokens", "examples")}
        found.append(rates | {"padding_share": 1 - sums["tokens"] / sums["slots"]})
    return {name: statistics.median(f[name] for f in found) for name in found[0]} | {"warm_up_seconds": warm_up}


def time_steps(task, stream, sections: dict, steps: int) -> dict[str, float]:
    """Rates of the training step on batches that are placed beforehand; the median over single steps, compilation apart."""
    import jax

    from rgjax.parallel import mesh as mesh_lib
    from rgjax.parallel import sharding
    from rgjax.train import optimizer, state, step

    config, mesh = sections["optimizer"], mesh_lib.make(sections["train"].mesh)
    tx = optimizer.make(config, sections["train"].steps)
    run = step.make_train_step(task.factory, task.loss(config.label_smoothing), tx, config)
    now, _ = state.create(task.factory, tx, mesh, config.ema > 0, sections["train"].seed)
    batches, compiled, rates = list(itertools.islice(stream, steps)), set(), []
    for batch in batches + batches:  # the first round compiles each shape
        placed = jax.block_until_ready(sharding.put(batch, mesh, config.accumulate))
        began = time.perf_counter()
        now, metrics = run(now, step.NOTHING_FIXED, placed)
        jax.block_until_ready((now, metrics))
        if batch["tokens"].shape in compiled:
            rates.append(count(batch)["tokens"] / (time.perf_counter() - began))
        compiled.add(batch["tokens"].shape)
    device = jax.devices()[0]
    return {"tokens_per_second": statistics.median(rates), "device": device.device_kind, "parameters": task.factory.count()}


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    sections = {"input": app.read(InputConfig), "model": app.read(ModelConfig), "optimizer": app.read(OptimizerConfig)}
    sections["train"] = app.read(TrainConfig)
    app.require(dataset=sections["input"].dataset)

    from rgjax.data import pipeline
    from rgjax.tasks import reason

    dataset, tokenizer = reason.dataset_tokenizer(sections["input"].dataset)
    architecture, rows = sections["model"].architecture, []
    own = "packed" if sections["input"].packing else "bucketed"

    def stream(layout: str, workers: int):
        config = dataclasses.replace(sections["input"], packing=layout == "packed", workers=workers)
        task = reason.ReasonTask(tokenizer, config, sections["model"])  # its own template: no cache is warm from the layout before
        return task, iter(pipeline.train_batches(dataset, task.template, config, architecture, seed=sections["train"].seed))

    for layout, workers in LAYOUTS:
        print(f"reading {layout}, {workers} workers", file=sys.stderr, flush=True)
        _, batches = stream(layout, workers)
        rows.append({"layout": layout, "workers": workers} | time_layout(batches, app.FLAGS.windows, app.FLAGS.batches))
    print("training", file=sys.stderr, flush=True)
    step = time_steps(*stream(own, 0), sections, app.FLAGS.timed_steps)
    for row in rows:
        row["times_the_step"] = row["tokens_per_second"] / step["tokens_per_second"]
    print(table(rows, step))
    best = max(r["times_the_step"] for r in rows if r["layout"] == own)
    return {"layouts": rows, "step": step | {"layout": own}, "best_of_own_layout": best, "required": REQUIRED, "enough": best >= REQUIRED}


def table(rows: list[dict], step: dict) -> str:
    """The rates as text."""
    lines = ["layout    workers   tokens/s  target tok/s  examples/s  padding  times the step"]
    for r in rows:
        rates = f"{r['tokens_per_second']:>10,.0f}  {r['target_tokens_per_second']:>12,.0f}  {r['examples_per_second']:>10,.0f}"
        lines.append(f"{r['layout']:<9} {r['workers']:>7} {rates}  {r['padding_share']:>7.1%}  {r['times_the_step']:>14.1f}")
    return "\n".join([*lines, f"training step {step['tokens_per_second']:>14,.0f}  ({step['device']}, {step['parameters']:,} parameters)"])


if __name__ == "__main__":
    app.define(InputConfig, ModelConfig, OptimizerConfig, TrainConfig, DecodeConfig)
    app.run(main, __doc__)
