"""Speed of the input pipeline alone, beside that of the training step it has to feed and of transformers' input.

    python -m profiling.input                             (the demo's dataset, made if it is missing, and configs/demo.cfg)
    python -m profiling.input --dataset=DATASET --flagfile=configs/demo.cfg

Reads batches as launch.train does, in every layout (packed, in length buckets) and with 0 and 2 worker processes. The peer reads the same
texts with a DataLoader, LengthGroupedSampler and DataCollatorForSeq2Seq, also with 0 and 2 workers, and once more with tokens made
beforehand. A window is --batches batches of each; sides take turns, and what they had read ahead meanwhile is dropped, untimed. Then the
flagfile's training step is timed on batches that are ready. The pipeline should outrun the step at least five times: then it never
matters. A ratio below that on an accelerator calls for --workers. Rates count real tokens (encoder included), never padding; the
efficiency is the share of the slots that hold them. The peer needs torch and transformers (and --architecture=causal); --nopeer leaves
it out.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator

from absl import flags

from launch import app
from profiling import bench, peer_input, raw, workload
from profiling.workload import CONFIGS, Workload
from rgjax.errors import UserError

REQUIRED = 5.0
LAYOUTS = (("packed", 0), ("packed", 2), ("bucketed", 0), ("bucketed", 2))
flags.DEFINE_bool("peer", True, "Also time the peer.")
flags.DEFINE_integer("batches", 40, "Batches in one window.", lower_bound=1)
flags.DEFINE_integer("timed_steps", 20, "Training steps timed.", lower_bound=5)


@dataclasses.dataclass
class Reader:
    """An endless stream of batches, how one is counted, and how many may be read ahead of it."""

    stream: Iterator[dict]
    count: Callable[[dict], dict[str, int]]
    ahead: int
    windows: list[list[dict]] = dataclasses.field(default_factory=list)  # the counts of each

    def read(self) -> list[dict]:
        """One window."""
        return list(itertools.islice(self.stream, app.FLAGS.batches))

    def figures(self, seconds: list[float]) -> dict[str, float]:
        """Medians over windows of the rates, and the shares of all slots that are filled and padded."""
        sums = [{name: sum(c[name] for c in window) for name in window[0]} for window in self.windows]
        rates = {f"{n}_per_second": statistics.median(w[n] / s for w, s in zip(sums, seconds, strict=True)) for n in sums[0] if n != "slots"}
        efficiency = sum(w["tokens"] for w in sums) / sum(w["slots"] for w in sums)
        return rates | {"packing_efficiency": efficiency, "padding_share": 1 - efficiency}

    def seconds_a_token(self, seconds: list[float]) -> list[float]:
        """Of each window."""
        return [s / sum(c["tokens"] for c in window) for s, window in zip(seconds, self.windows, strict=True)]


def our_stream(dataset, tokenizer, sections: dict, layout: str, workers: int):
    """The stream of a layout."""
    from rgjax.tasks import reason

    config = dataclasses.replace(sections["input"], packing=layout == "packed", workers=workers)
    task = reason.ReasonTask(tokenizer, config, sections["model"])  # its own template: no cache is warm from the layout before
    return task.training_data(dataset, sections["train"].seed)


def peer_readers(dataset, tokenizer, sections: dict) -> dict[str, Reader]:
    """The peer with 0 and 2 workers, and with tokens made beforehand."""
    from rgjax.data.template import Template

    config = sections["input"]
    if sections["model"].architecture != "causal":
        raise UserError("The peer reads decoder-only examples; give --architecture=causal, or --nopeer.")
    template, theirs = Template(tokenizer, config), peer_input.open_tokenizer(dataset.tokenizer_folder)
    texts = peer_input.texts_of(dataset, template, tokenizer)
    read = peer_input.Texts(texts, theirs, template.budget, config.target_length)
    ready = [read[i] for i in range(len(read))]
    lengths, found = [len(e["input_ids"]) for e in ready], {}
    for name, examples, workers in (("peer, 0 workers", read, 0), ("peer, 2 workers", read, 2), ("peer, tokens ready", ready, 0)):
        made = peer_input.loader(examples, lengths, theirs, config.batch_size, workers)
        found[name] = Reader(peer_input.endless(made), peer_input.count, 2 * workers)
    return found


def timed(readers: dict[str, Reader]) -> dict[str, dict]:
    """The figures of each reader, taking turns."""
    drop = lambda name: [next(readers[name].stream) for _ in range(readers[name].ahead)]
    calls, latest = {}, {}
    for name, reader in readers.items():
        calls[name] = lambda name=name, reader=reader: latest.__setitem__(name, reader.read())
    keep = lambda name: readers[name].windows.append([readers[name].count(b) for b in latest.pop(name)])
    found = bench.take_turns(calls, app.FLAGS.rounds, before=drop, after=keep)
    for name, reader in readers.items():
        reader.windows.pop(0)  # of the warm-up
        found[name] |= reader.figures(found[name]["rounds"])
    return found


def time_steps(work: Workload, steps: int) -> dict[str, float]:
    """Rates of the training step on batches that are placed beforehand; the median over single steps, compilation apart."""
    import jax

    run, stream, (state, fixed) = work.step(), work.batches(), work.begin()
    held, batches, compiled, rates = [state], list(itertools.islice(stream, steps)), set(), []
    stream.close()

    def take(placed: dict):
        held[0], metrics = run(held[0], fixed, placed)
        return held[0], metrics

    for batch in batches + batches:  # the first round compiles each shape
        placed = jax.block_until_ready(work.put(batch))
        seconds = bench.timed(lambda placed=placed: take(placed))
        if batch["tokens"].shape in compiled:
            rates.append(bench.held(batch)["tokens"] / seconds)
        compiled.add(batch["tokens"].shape)
    return {"tokens_per_second": statistics.median(rates), "device": jax.devices()[0].device_kind, "parameters": work.factory.count()}


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    if app.FLAGS.peer:
        bench.need()
    app.FLAGS.dataset = app.FLAGS.dataset or raw.of_demo()
    sections = workload.sections()

    from rgjax.tasks import reason

    dataset, tokenizer = reason.dataset_tokenizer(sections["input"].dataset)
    own = "packed" if sections["input"].packing else "bucketed"
    readers = {}
    for layout, workers in LAYOUTS:
        stream = our_stream(dataset, tokenizer, sections, layout, workers)
        readers[f"{layout}, {workers} workers"] = Reader(stream, bench.held, sections["input"].prefetch * max(1, workers))
    readers |= peer_readers(dataset, tokenizer, sections) if app.FLAGS.peer else {}
    print("reading", file=sys.stderr, flush=True)
    found = timed(readers)
    for name, _ in LAYOUTS:
        for workers in (0, 2):
            readers[f"{name}, {workers} workers"].stream.close()
    print("training", file=sys.stderr, flush=True)
    read_here = sections | {"input": dataclasses.replace(sections["input"], workers=0)}
    step = time_steps(Workload.open(read_here), app.FLAGS.timed_steps)
    for f in found.values():
        f["times_the_step"] = f["tokens_per_second"] / step["tokens_per_second"]
    print(table(found, step))
    return summary(found, readers, own, step)


def summary(found: dict[str, dict], readers: dict[str, Reader], own: str, step: dict) -> dict:
    """The last line; `ours` and `peer` are the better of 0 and 2 workers, and `ratio` is of the seconds of a real token."""
    best = lambda start: max((n for n in found if n.startswith(start) and n.endswith("workers")), key=lambda n: found[n]["tokens_per_second"])
    a_token = {name: reader.seconds_a_token(found[name]["rounds"]) for name, reader in readers.items()}
    ours, sides = best(own), {name: {k: v for k, v in f.items() if k != "rounds"} for name, f in found.items()}
    result = {"ours": {"side": ours, **sides[ours]}}
    if any(name.startswith("peer") for name in found):
        peer, ready = best("peer"), "peer, tokens ready"
        result |= {"peer": {"side": peer, **sides[peer]}, "ratio": bench.ratio(a_token[ours], a_token[peer])}
        result["ratio_to_tokens_ready"] = bench.ratio(a_token[ours], a_token[ready])
        print(f"real tokens, ours ({ours}) over {peer} {bench.told(result['ratio'])}, over {ready} {bench.told(result['ratio_to_tokens_ready'])}")
    result |= {"device": bench.device(), "versions": bench.versions("grain"), "sides": sides, "rounds": {n: f["rounds"] for n, f in found.items()}}
    most = found[ours]["times_the_step"]
    return result | {"step": step | {"layout": own}, "best_of_own_layout": most, "required": REQUIRED, "enough": most >= REQUIRED}


def table(found: dict[str, dict], step: dict) -> str:
    """The rates as text."""
    lines = [f"{'':<21} {'tokens/s':>10}  {'target tok/s':>12}  {'examples/s':>10}  {'padded':>7}  {'efficiency':>10}  {'times the step':>14}"]
    for name, r in found.items():
        rates = f"{r['tokens_per_second']:>10,.0f}  {r['target_tokens_per_second']:>12,.0f}  {r['examples_per_second']:>10,.0f}"
        shares = f"{r['padding_share']:>7.1%}  {r['packing_efficiency']:>10.1%}"
        lines.append(f"{name:<21} {rates}  {shares}  {r['times_the_step']:>14.1f}")
    return "\n".join([*lines, f"training step {step['tokens_per_second']:>18,.0f}  ({step['device']}, {step['parameters']:,} parameters)"])


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
