"""Training on real texts as they are, beside transformers with dynamic padding and batches grouped by length.

    python -m profiling.real_text --dataset=DATASET --flagfile=configs/llmxrec_small.cfg
    python -m profiling.real_text --source=FOLDER --prepare=configs/data/advertisegen.cfg --flagfile=configs/advertisegen_small.cfg

Of the flagfile the layout counts (length, packing or buckets, prompt) and the model's layers, width and heads; the model is a GPT-2 with
the same weights on both sides, of another shape where flags say so after it (--layers=6 --width=512 --heads=8). Ours trains on batches of
its own stream until they hold --examples examples. The peer trains on exactly these, cut as ours, drawn by LengthGroupedSampler and padded
by DataCollatorForSeq2Seq, as many a step as ours holds on average. The loss is on the tokens of the reason only; both sides must count the
same of them, with the same loss, before anything is timed. A round is one pass over all; the rate is target tokens a second. Batches are
made beforehand on both sides: profiling.input times the making. With --apart the sides take their turns in processes of their own, ours
with large memory pages, as launch.train has them. Needs torch and transformers.
"""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl import flags

from launch import app, pages
from profiling import bench, peer_input, sides
from profiling.elsewhere import Elsewhere, serve
from profiling.peer_input import IGNORED
from rgjax.config import DecodeConfig, InputConfig, ModelConfig, OptimizerConfig, TrainConfig
from rgjax.errors import UserError

flags.DEFINE_string("source", "", "Folder or file with raw data, prepared into a temporary folder; or give --dataset.")
flags.DEFINE_string("prepare", "", "Flagfile of launch.prepare for --source.")
flags.DEFINE_integer("examples", 192, "Least examples of a pass: batches are read until they hold so many.", lower_bound=1)
flags.DEFINE_integer("peer_rows", 0, "Examples of a step of the peer; 0 takes as many as ours has on average.", lower_bound=0)
flags.DEFINE_bool("compile_peer", False, "Also time the peer compiled by torch.compile for varying shapes, and compare with that.")
flags.DEFINE_bool("apart", False, "Each side in a process of its own, as its users start it.")
flags.DEFINE_string("side", "", "Only takes this side's turns (used by the command itself).")
flags.DEFINE_string("weights", "", "Folder of the model that --side trains (used by the command itself).")

OURS, PEER, COMPILED = "ours", "peer", "peer, compiled"
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # relative, of the first loss


def prepared(source: str, cfg: str, output: str) -> str:
    """A dataset folder made of raw data by launch.prepare with a flagfile of configs/data."""
    command = [sys.executable, "-m", "launch.prepare", f"--flagfile={cfg}", f"--source={source}", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["launch.prepare failed"])[-1].removeprefix("error: "))
    return output


def our_batches(dataset, tokenizer, config: InputConfig, seed: int, examples: int) -> tuple[list[dict[str, np.ndarray]], int]:
    """Batches of the training stream, until they hold so many examples; and how many targets a row has at most, where that is known."""
    from rgjax.tasks.reason import ReasonTask

    task = ReasonTask(tokenizer, config, ModelConfig(max_positions=max(1024, config.length)))
    stream, found, held = task.training_data(dataset, seed), [], 0
    try:
        while held < examples:
            found.append(next(stream))
            held += int(found[-1]["segment_ids"].max(axis=1).sum())
    finally:
        stream.close()
    return found, task.most_targets


def peer_batches(examples: list[dict], tokenizer_folder: pathlib.Path, rows: int) -> list[dict]:
    """The examples as transformers batches them."""
    lengths = [len(e["input_ids"]) for e in examples]
    masked = [{**e, "attention_mask": [1] * n} for e, n in zip(examples, lengths, strict=True)]
    loader = peer_input.loader(masked, lengths, peer_input.open_tokenizer(tokenizer_folder), rows)
    return [{name: values.to(bench.torch_device()) for name, values in batch.items()} for batch in loader]


def fill(batches: list[dict[str, np.ndarray]], peer: list[dict]) -> dict[str, dict]:
    """What the batches of either side hold: steps, examples, real and target tokens, slots and the share of them that is padding."""
    found = {}
    for name, fed, count in ((OURS, batches, bench.held), (PEER, peer, peer_input.count)):
        counts = [count(batch) for batch in fed]
        total = {key: sum(c[key] for c in counts) for key in counts[0]}
        found[name] = {"steps": len(fed), **total, "padded_share": 1 - total["tokens"] / total["slots"]}
    return found


def losses(folder: str, batches: list[dict], peer: list[dict]) -> dict[str, float]:
    """Of both sides with the weights that they begin with, per target token of all examples."""
    import jax
    import torch

    from rgjax.parallel import mesh as mesh_lib
    from rgjax.parallel import sharding
    from rgjax.tasks import reason
    from rgjax.train.step import make_eval_step

    factory, params = sides.our_model(folder)
    step, mesh, model = make_eval_step(factory, reason.sums), mesh_lib.make("data:1"), sides.peer_model(folder).eval()
    found = [jax.device_get(step(params, sharding.put(b, mesh))) for b in batches]
    with torch.inference_mode(), sides.autocast():
        counted = [(float(model(**b).loss), int((b["labels"] != IGNORED).sum())) for b in peer]
    ours = float(sum(f["nll"] for f in found) / sum(f["tokens"] for f in found))
    return {OURS: ours, PEER: sum(loss * n for loss, n in counted) / sum(n for _, n in counted)}


def check(counts: dict[str, dict], found: dict[str, float]) -> None:
    """Raises UserError unless both sides read the same targets with the same loss."""
    one, other = counts[OURS], counts[PEER]
    if any(one[name] != other[name] for name in ("examples", "target_tokens")):
        raise UserError(f"The sides do not read the same: ours {one}, the peer {other}; no times are told.")
    if not np.isclose(found[OURS], found[PEER], rtol=TOLERANCE[app.FLAGS.dtype]):
        raise UserError(f"The sides do not compute the same: their losses are {found}; no times are told.")


def read(folder: str) -> tuple[list[dict], int, list[dict]]:
    """(our batches, the most targets of a row, the peer's batches) of the dataset in `folder`, whose vocabulary the models then have."""
    from rgjax.tasks import reason

    f, config = app.FLAGS, app.read(InputConfig)
    if f.architecture != "causal" or config.length > f.max_positions:
        raise UserError(f"Decoder-only rows of at most --max_positions={f.max_positions} are compared; mend --architecture or --length.")
    dataset, tokenizer = reason.dataset_tokenizer(folder)
    f.vocab_size = tokenizer.vocab_size
    batches, most = our_batches(dataset, tokenizer, config, f.seed, f.examples)
    examples = peer_input.unpacked(batches)
    rows = f.peer_rows or max(1, round(len(examples) / len(batches)))
    return batches, most, peer_batches(examples, dataset.tokenizer_folder, rows)


def made(side: str, folder: str, batches: list[dict], most: int, peer: list[dict]):
    """A call of that side that makes one pass."""
    ours = side == OURS
    step = sides.OurTraining(folder, most) if ours else sides.peer_training(folder, side == COMPILED, dynamic=side == COMPILED or None)
    fed = [sides.placed(b) for b in batches] if ours else peer
    return lambda: [step(b) for b in fed][-1]


def timed(folder: str, place: str, names: list[str], fed: tuple) -> dict[str, dict]:
    """The times of these sides, in turn: in this process, or each in its own."""
    if not app.FLAGS.apart:
        return bench.take_turns({name: made(name, place, *fed) for name in names}, app.FLAGS.rounds)
    with contextlib.ExitStack() as stack:
        calls = {}
        for name in names:
            own = (f"--side={name}", f"--weights={place}", f"--dataset={folder}", "--source=")
            calls[name] = stack.enter_context(Elsewhere("profiling.real_text", *own, env=pages.environment() if name == OURS else None))
        return bench.take_turns(calls, app.FLAGS.rounds)


def measured(folder: str, place: str) -> dict:
    """All figures of the dataset in `folder`."""
    f, config, fed = app.FLAGS, app.read(InputConfig), read(folder)
    sides.write(place)
    batches, _, peer = fed
    counts, agreed = fill(batches, peer), losses(place, batches, peer)
    check(counts, agreed)
    found = timed(folder, place, [OURS, PEER, *([COMPILED] if f.compile_peer else [])], fed)
    for name in found:
        filled = counts[OURS if name == OURS else PEER]
        found[name] |= filled | {"target_tokens_per_second": filled["target_tokens"] / found[name]["seconds"]}
    print(bench.table(found, counts[OURS]["target_tokens"], "target tokens"))
    for name, c in counts.items():
        padded = f"{c['padded_share']:.1%} of {c['slots']:,} slots padded"
        print(f"{name}: {c['examples']} examples in {c['steps']} steps, {padded}; loss {agreed[name]:.5f}")
    layout = "packed" if config.packing else f"buckets {config.buckets}"
    shape = sides.shape("length", "batch_size", "scan", "remat", "precision")
    return bench.summary(found, list(found)[-1], losses=agreed, layout=layout, shape=shape, apart=f.apart)


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need()
    bench.same_precision()
    f = app.FLAGS
    if bool(f.source) == bool(f.dataset):
        raise UserError("Give either --dataset, a prepared folder, or --source and --prepare, raw data and a flagfile of configs/data.")
    if f.side:
        serve(made(f.side, f.weights, *read(f.dataset)))
        return {}
    if f.source:
        app.require(prepare=f.prepare)
    with tempfile.TemporaryDirectory() as place:
        return measured(f.dataset or prepared(f.source, f.prepare, f"{place}/data"), f"{place}/model")


if __name__ == "__main__":
    app.define(InputConfig, ModelConfig, OptimizerConfig, TrainConfig, DecodeConfig, skip=sides.OWN)
    app.run(main, __doc__)
