"""Training on real texts as they are, beside transformers with dynamic padding and batches grouped by length.

    python -m profiling.real_text                         (the demo's dataset, made if it is missing)
    python -m profiling.real_text --source=FOLDER         (raw data of a layout that configs/data has; --prepare names another flagfile)
    python -m profiling.real_text --dataset=DATASET --flagfile=configs/llmxrec_small.cfg

Without --flagfile the demo's or raw data's is taken, NAME_small.cfg where configs/data/NAME.cfg reads it. Of the flagfile the layout counts
(length, packing or buckets, prompt) and the model's layers, width and heads; the model is a GPT-2 with the same weights on both sides, of
another shape where flags say so after it (--layers=6 --width=512 --heads=8). The loss is on the tokens of the reason only.

Each side makes the batches of an epoch as its users' runs do: ours is the training stream, the peer's the order of LengthGroupedSampler
over all training examples, cut as ours and padded by DataCollatorForSeq2Seq, as many a step as ours holds on average. (Where there are
more than 20,000 examples, so many of them are drawn; its mega-batches stay as large.) A pass is a fair sample of either epoch: of the
batches in order of their size one is drawn from each of as many equal parts as it takes to hold --examples examples, and of many such
draws the one nearest the epoch's means is taken; what a pass holds is told beside what its epoch does. As the sides read different
examples of the same texts, seconds are those of 100,000 target tokens, also in `rounds`; `pass_seconds` are a pass's. Before anything is
timed the peer reads the examples of our pass, and must count the same targets with the same loss. profiling.input times the making of
batches. With --apart the sides take their turns in processes of their own, ours with large memory pages, as launch.train has them. Needs
torch and transformers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import tempfile

import numpy as np
from absl import flags

from launch import app, pages
from profiling import bench, passes, peer_input, raw, sides
from profiling.elsewhere import Elsewhere, serve
from profiling.peer_input import IGNORED
from rgjax.config import DecodeConfig, InputConfig, ModelConfig, OptimizerConfig, TrainConfig
from rgjax.errors import UserError

flags.DEFINE_string("source", "", "Folder or file with raw data, prepared into a temporary folder; or give --dataset.")
flags.DEFINE_string("prepare", "", "Flagfile of launch.prepare for --source; empty looks for the one of configs/data that reads it.")
flags.DEFINE_integer("examples", 192, "Least examples of a pass; one of few batches is less like its epoch.", lower_bound=1)
flags.DEFINE_integer("peer_rows", 0, "Examples of a step of the peer; 0 takes as many as ours has on average.", lower_bound=0)
flags.DEFINE_bool("compile_peer", False, "Also time the peer compiled by torch.compile for varying shapes, and compare with that.")
flags.DEFINE_bool("apart", False, "Each side in a process of its own, as its users start it.")
flags.DEFINE_string("side", "", "Only takes this side's turns (used by the command itself).")
flags.DEFINE_string("weights", "", "Folder of the model that --side trains (used by the command itself).")

OURS, PEER, COMPILED = "ours", "peer", "peer, compiled"
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # relative, of the first loss
MOST = 20_000  # examples of an epoch
UNIT = 100_000  # target tokens that a side's seconds are told for


@dataclasses.dataclass
class Read:
    """By side the `batches` of a pass and what is `told` of it; `checked` are the examples of ours in the peer's batches.

    `most` target tokens are in a row of ours, where that is known.
    """

    batches: dict[str, list[dict]]
    told: dict[str, dict]
    checked: list[dict]
    most: int


def our_epoch(task, dataset, seed: int, least: int) -> list[dict[str, np.ndarray]]:
    """Batches of the training stream, until they hold so many examples."""
    stream, found, held = task.training_data(dataset, seed), [], 0
    try:
        while held < least:
            found.append(next(stream))
            held += bench.held(found[-1])["examples"]
    finally:
        stream.close()
    return found


def grouped(examples: list[dict], tokenizer_folder: pathlib.Path, rows: int):
    """A loader of the examples' epochs, as transformers batches them."""
    return peer_input.loader(examples, [len(e["input_ids"]) for e in examples], peer_input.open_tokenizer(tokenizer_folder), rows)


def peer_epoch(examples: list[dict], tokenizer_folder: pathlib.Path, rows: int, least: int) -> list[dict]:
    """The whole batches of as many epochs as hold so many examples, one as a rule."""
    whole = len(examples) // rows * rows
    if not whole:
        raise UserError(f"A step of the peer has {rows} examples, and there are {len(examples)}; give fewer as --peer_rows.")
    made = grouped(examples, tokenizer_folder, rows)
    return [batch for _ in range(math.ceil(least / whole)) for batch in made if len(batch["labels"]) == rows]


def on_device(batches: list[dict]) -> list[dict]:
    """The peer's batches where it computes."""
    return [{name: values.to(bench.torch_device()) for name, values in batch.items()} for batch in batches]


def read(folder: str) -> Read:
    """The passes over the dataset in `folder`, whose vocabulary the models then have."""
    from rgjax.tasks import reason

    f, config = app.FLAGS, app.read(InputConfig)
    if f.architecture != "causal" or config.length > f.max_positions:
        raise UserError(f"Decoder-only rows of at most --max_positions={f.max_positions} are compared; mend --architecture or --length.")
    dataset, tokenizer = reason.dataset_tokenizer(folder)
    f.vocab_size = tokenizer.vocab_size
    task = reason.ReasonTask(tokenizer, config, ModelConfig(max_positions=max(1024, config.length)))
    epoch = our_epoch(task, dataset, f.seed, max(f.examples, min(MOST, dataset.count("train"))))
    batches, ours = passes.drawn(epoch, bench.held, f.examples, f.seed)
    rows = f.peer_rows or max(1, round(ours["epoch"]["examples"] / ours["epoch"]["steps"]))
    examples = peer_input.training_examples(task, dataset, f.seed, max(MOST, 4 * rows * peer_input.MOST_SORTED))
    epoch = peer_epoch(examples, dataset.tokenizer_folder, rows, ours["examples"])
    theirs, peer = passes.drawn(epoch, peer_input.count, ours["examples"], f.seed)
    peer |= {"rows": rows, "mega_batch_mult": peer_input.mega_batch(len(examples), rows), "grouped_examples": len(examples)}
    checked = on_device(grouped(peer_input.unpacked(batches), dataset.tokenizer_folder, rows))
    return Read({OURS: batches, PEER: on_device(theirs)}, {OURS: ours, PEER: peer}, checked, task.most_targets)


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


def check(one: dict, other: dict, found: dict[str, float]) -> None:
    """Raises UserError unless both sides, of whose batches `one` and `other` tell, read the same targets with the same loss."""
    if any(one[name] != other[name] for name in ("examples", "target_tokens")):
        raise UserError(f"The sides do not read the same: ours {one}, the peer {other}; no times are told.")
    if not np.isclose(found[OURS], found[PEER], rtol=TOLERANCE[app.FLAGS.dtype]):
        raise UserError(f"The sides do not compute the same: their losses are {found}; no times are told.")


def made(side: str, folder: str, data: Read):
    """A call of that side that makes one pass."""
    ours = side == OURS
    step = sides.OurTraining(folder, data.most) if ours else sides.peer_training(folder, side == COMPILED, dynamic=side == COMPILED or None)
    fed = [sides.placed(b) for b in data.batches[OURS]] if ours else data.batches[PEER]
    return lambda: [step(b) for b in fed][-1]


def timed(folder: str, place: str, names: list[str], data: Read) -> dict[str, dict]:
    """The times of these sides' passes, in turn: in this process, or each in its own."""
    if not app.FLAGS.apart:
        return bench.take_turns({name: made(name, place, data) for name in names}, app.FLAGS.rounds)
    with contextlib.ExitStack() as stack:
        calls = {}
        for name in names:
            own = (f"--side={name}", f"--weights={place}", f"--dataset={folder}", "--source=")
            calls[name] = stack.enter_context(Elsewhere("profiling.real_text", *own, env=pages.environment() if name == OURS else None))
        return bench.take_turns(calls, app.FLAGS.rounds)


def a_unit(times: dict, told: dict) -> dict:
    """A side's times of passes as those of UNIT target tokens, and what a pass holds."""
    rounds = [s * UNIT / told["target_tokens"] for s in times["rounds"]]
    more = {"pass_seconds": times["seconds"], "target_tokens_per_second": told["target_tokens"] / times["seconds"]}
    return {"compile_seconds": times["compile_seconds"], **bench.spread(rounds), "rounds": rounds, **told, **more}


def line(name: str, told: dict) -> str:
    """What a pass of a side holds, beside its epoch, as text."""
    both = (told, told["epoch"])
    size = " of ".join(f"{t['examples']:,} examples in {t['steps']:,} steps" for t in both)
    tokens, targets, padded = ([t[key] for t in both] for key in ("mean_tokens", "mean_target_tokens", "padded_share"))
    means = f"{tokens[0]:.1f} ({tokens[1]:.1f}) tokens an example, {targets[0]:.1f} ({targets[1]:.1f}) targets"
    sorted_by = f", {told['mega_batch_mult']} batches of {told['rows']} sorted together" if name == PEER else ""
    return f"{name}: {size}{sorted_by}; {means}, {padded[0]:.1%} ({padded[1]:.1%}) of the slots padded"


def measured(folder: str, place: str) -> dict:
    """All figures of the dataset in `folder`."""
    f, config, data = app.FLAGS, app.read(InputConfig), read(folder)
    sides.write(place)
    agreed = losses(place, data.batches[OURS], data.checked)
    check(data.told[OURS], passes.sums([peer_input.count(b) for b in data.checked]), agreed)
    found = timed(folder, place, [OURS, PEER, *([COMPILED] if f.compile_peer else [])], data)
    found = {name: a_unit(times, data.told[OURS if name == OURS else PEER]) for name, times in found.items()}
    print(f"seconds of {UNIT:,} target tokens\n{bench.table(found, UNIT, 'target tokens')}")
    for name, told in data.told.items():
        print(line(name, told))
    print(f"losses of our pass: ours {agreed[OURS]:.5f}, the peer {agreed[PEER]:.5f}; in brackets: of the epoch that a pass is drawn from")
    layout = "packed" if config.packing else f"buckets {config.buckets}"
    shape = sides.shape("length", "batch_size", "scan", "remat", "precision")
    return bench.summary(found, list(found)[-1], losses=agreed, layout=layout, shape=shape, apart=f.apart, seconds_of_target_tokens=UNIT)


def chosen(place: str) -> str:
    """The dataset folder that the flags ask for; of raw data it is made in `place`."""
    f = app.FLAGS
    if not f.source:
        return f.dataset or raw.of_demo()
    cfg = f.prepare or raw.flagfile(f.source)
    raw.trained_as_usual(cfg)
    return raw.prepared(f.source, cfg, place)


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need()
    bench.same_precision()
    f = app.FLAGS
    if f.side:
        serve(made(f.side, f.weights, read(f.dataset)))
        return {}
    if f.source and f.dataset:
        raise UserError("--source and --dataset are both given, raw data and a prepared folder; leave one out.")
    if f.prepare and not f.source:
        raise UserError(f"--prepare={f.prepare} is for raw data; give it as --source, or leave --prepare out.")
    with tempfile.TemporaryDirectory() as place:
        return measured(chosen(f"{place}/data"), f"{place}/model")


if __name__ == "__main__":
    app.define(InputConfig, ModelConfig, OptimizerConfig, TrainConfig, DecodeConfig, skip=sides.OWN)
    app.run(main, __doc__)
