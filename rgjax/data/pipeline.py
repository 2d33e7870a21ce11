"""Dataset folder -> batches: shuffle, render, pack (or bucket), batch, prefetch. Everything has exact state (rgjax/data/streams.py).

A batch holds int32 arrays [rows, T]: `tokens`, `targets` (tokens shifted by one), `weights` (1 on tokens of the reason, or with
--loss_on=all on every token of the example, 0 elsewhere), `segment_ids` (which example of the row; 0 = padding) and `positions`
(restart with each example), and [rows, M] `segment_lengths` (of the examples that a row may hold; 0 = not there); the encoder-decoder
adds `encoder_tokens`, `encoder_segment_ids`, `encoder_positions` [rows, S] and `encoder_segment_lengths`, and a teacher its
probabilities `teacher_ids` and `teacher_logits` (rgjax/data/teacher.py). Examples that come with precomputed vectors add `vectors`,
float32 [rows, M, Z]: the k-th is of the row's k-th example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.data import buckets
from rgjax.data import teacher as teacher_lib
from rgjax.data.dataset import Dataset, Joined
from rgjax.data.shape import Shape
from rgjax.data.streams import READ, Streams, deal
from rgjax.data.template import Rendered, Template
from rgjax.errors import UserError

PACKING_BINS = 64  # rows of a stream filled side by side, twice as many with --row_length; more pack tighter and delay the first batch


def features(rendered: Rendered, encoder: bool, start_id: int, loss_on: str = "reason") -> dict[str, np.ndarray]:
    """One example as unpadded arrays (see the module's docstring); `loss_on='all'` is for decoder-only rows."""
    prompt, target = rendered.prompt_ids, rendered.target_ids
    if encoder:
        rows = {"encoder_tokens": prompt, "tokens": [start_id] + target[:-1], "targets": target, "weights": [1] * len(target)}
    else:
        whole = prompt + target
        weights = [int(loss_on == "all")] * (len(prompt) - 1) + [1] * len(target)
        rows = {"tokens": whole[:-1], "targets": whole[1:], "weights": weights}
    arrays = {name: np.asarray(values, np.int32) for name, values in rows.items()}
    return arrays if rendered.vector is None else arrays | {"vectors": rendered.vector[None]}


def as_fed(example: dict, template: Template, config: InputConfig, architecture: str, with_control: bool = True) -> dict[str, np.ndarray]:
    """The arrays of one example as batches hold them: rendered, and cut to the row."""
    rendered = template.render(example, with_control=with_control)
    start = template.tokenizer.pad_id  # the decoder begins with padding, as in T5
    arrays = _fit(features(rendered, architecture == "seq2seq", start, config.loss_on), Shape.of(config, architecture, alone=True))
    return arrays | teacher_lib.aligned(example, arrays["targets"], arrays["weights"])


def train_batches(
    dataset: Dataset, template: Template, config: InputConfig, architecture: str, *, seed: int, process: int = 0, processes: int = 1,
    replay: Sequence[Dataset] = (), teacher: teacher_lib.TeacherLogits | None = None,
) -> Streams:  # fmt: skip
    """Endless training batches of this process's share, config.batch_size / processes rows each.

    The examples are dealt to config.streams streams (0 takes as many as a new run gets), of which each process reads its share.
    Of the examples config.replay_share come from the training splits of `replay`, taken together, in an order of their own.
    `teacher` adds its probabilities to the examples of `dataset`.
    Raises UserError when batch, streams and processes do not divide, or the batch is larger than the data.
    """
    count, shape = dataset.count("train"), Shape.of(config, architecture)
    if config.batch_size % processes:
        raise UserError(f"--batch_size={config.batch_size} does not divide among {processes} processes; take a multiple.")
    if config.batch_size > count:
        raise UserError(f"--batch_size={config.batch_size} is larger than the {count} training examples; lower it.")

    def render(example: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return as_fed(example, template, config, architecture, with_control=rng.random() >= config.control_dropout)

    own = teacher.beside(dataset.source("train")) if teacher else dataset.source("train")
    sources = [own, *(earlier.source("train") for earlier in replay)]
    if config.packing:
        stream = _packed(sources, render, config, shape, bool(teacher), seed)
    else:
        stream = _bucketed(sources, render, template, config, shape, architecture == "seq2seq", seed)
    return deal(stream, config, count, "training examples", process, processes)


def _packed(sources, render, config, shape, taught: bool, seed: int) -> Callable[[int, int], grain.IterDataset]:
    """The stream of a number: its share of the examples, several packed into a row."""
    lengths = _lengths(shape) | (dict.fromkeys(teacher_lib.FIELDS, shape.length) if taught else {})
    bins = PACKING_BINS * (2 if config.row_length else 1)  # what a run was begun with: its saved position counts rows of these

    def share(source, seed: int, number: int, total: int) -> grain.MapDataset:  # each stream takes its share of either, so that all mix alike
        return grain.MapDataset.source(source).seed(seed).shuffle().random_map(render).repeat()[number::total]

    def stream(number: int, total: int) -> grain.IterDataset:
        mixed = share(sources[0], seed, number, total)
        if len(sources) > 1:
            weights = [1 - config.replay_share, config.replay_share]
            mixed = grain.MapDataset.mix([mixed, share(Joined(sources[1:]), seed + 1, number, total)], weights)
        packed = grain.experimental.FirstFitPackIterDataset(
            mixed.to_iter_dataset(READ), length_struct=lengths, num_packing_bins=bins, seed=seed, shuffle_bins=True,
            max_sequences_per_bin=shape.examples,
        )  # fmt: skip
        return packed.map(lambda row: _from_packed(row, shape)).batch(config.batch_size // total, drop_remainder=True)

    return stream


def _lengths(shape: Shape) -> dict[str, int]:
    lengths = {"tokens": shape.length, "targets": shape.length, "weights": shape.length}
    lengths |= {"vectors": shape.vectors} if shape.vectors else {}
    return lengths | ({"encoder_tokens": shape.encoder_length} if shape.encoder_length else {})


def _fit(arrays: dict[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    """Cuts to the row; only a prompt of title and control codes alone can exceed the template's budget."""
    lengths = _lengths(shape)
    return {name: values[: lengths.get(name, shape.length)] for name, values in arrays.items()}


def _from_packed(row: dict[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    out = {"segment_ids": row["tokens_segment_ids"], "positions": row["tokens_positions"]}
    out |= {name: row[name] for name in ("tokens", "targets", "weights")}
    if "encoder_tokens" in row:
        names = ("encoder_tokens", "encoder_tokens_segment_ids", "encoder_tokens_positions")
        out |= {name.replace("_tokens_", "_"): row[name] for name in names}
    taken = {name: row[name] for name in (*teacher_lib.FIELDS, "vectors") if name in row}
    return _with_lengths(_typed(out), shape) | taken


def _with_lengths(row: dict[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    """With `segment_lengths`: as many as a row may hold, so that the fused kernel works for no more."""
    ids = {name: values for name, values in row.items() if name.endswith("segment_ids")}
    count = lambda values: np.bincount(values, minlength=shape.examples + 1)[1:].astype(np.int32)
    return row | {name.replace("_ids", "_lengths"): count(values) for name, values in ids.items()}


def _typed(arrays: dict) -> dict[str, np.ndarray]:
    """Everything but vectors as int32."""
    return {name: np.asarray(values, np.float32 if name == "vectors" else np.int32) for name, values in arrays.items()}


def pad_rows(examples: list[dict[str, np.ndarray]], shape: Shape, rows: int) -> dict[str, np.ndarray]:
    """A batch of one example a row, padded to `shape` and with empty rows to `rows`."""
    lengths = _lengths(shape)
    taught = {name: shape.length for name in teacher_lib.FIELDS if name in examples[0]}
    sizes = ((name, (rows, length, *examples[0][name].shape[1:])) for name, length in (lengths | taught).items())
    out = {name: np.zeros(size, examples[0][name].dtype) for name, size in sizes}
    for prefix, length in (("", shape.length), ("encoder_", shape.encoder_length)):
        if length:
            out |= {f"{prefix}{name}": np.zeros((rows, length), np.int32) for name in ("segment_ids", "positions")}
            out[f"{prefix}segment_lengths"] = np.zeros((rows, 1), np.int32)
    for i, arrays in enumerate(examples):
        for name, values in arrays.items():
            out[name][i, : len(values)] = values
        for prefix in ("", "encoder_") if shape.encoder_length else ("",):
            n = len(arrays[f"{prefix}tokens"])
            out[f"{prefix}segment_ids"][i, :n] = 1
            out[f"{prefix}segment_lengths"][i] = n
            out[f"{prefix}positions"][i, :n] = np.arange(n)
    return out


def _bucketed(sources, render, template, config, shape, encoder: bool, seed: int) -> Callable[[int, int], grain.IterDataset]:
    """The stream of a number: one example a row; every batch is of one length bucket, and which comes i-th follows from the seed alone."""
    source = Joined(sources)
    sizes_N2 = np.array([buckets.sizes(features(template.render(source[i]), encoder, 0)) for i in range(len(source))])
    shapes = buckets.shapes(config.buckets, shape, sizes_N2)
    plan = buckets.Plan(buckets.of(sizes_N2, shapes), len(shapes), config.batch_size, seed, len(sources[0]), config.replay_share)

    def stream(number: int, total: int) -> grain.IterDataset:
        rows = config.batch_size // total

        def chunk(index: int, _) -> dict[str, np.ndarray]:
            which, members = plan[index]
            numbers = range(number * rows, (number + 1) * rows)  # the same draws, however many streams share the batch
            made = [render(source[int(members[n])], np.random.default_rng((seed, index, n))) for n in numbers]
            return pad_rows([_fit(m, shapes[which]) for m in made], shapes[which], rows)

        return grain.MapDataset.range(plan.batches_per_epoch).repeat().map_with_index(chunk).to_iter_dataset(READ)

    return stream


def eval_batches(
    dataset: Dataset, split: str, template: Template, config: InputConfig, architecture: str, *, limit: int = 0,
    process: int = 0, processes: int = 1,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """Every example of a split once, in order, packed into full-shape batches; the last is padded with empty rows.

    All processes walk the same split and keep their rows, so they agree on the number of batches. `limit` bounds it.
    """
    shape, rows, made = Shape.of(config, architecture), config.batch_size, 0
    packed: list[dict[str, np.ndarray]] = []
    for row in _pack_rows((as_fed(e, template, config, architecture) for e in dataset.examples(split)), shape):
        packed.append(row)
        if len(packed) == rows:
            yield _share(packed, rows, process, processes)
            packed, made = [], made + 1
            if limit and made == limit:
                return
    if packed:
        empty = {name: np.zeros_like(values) for name, values in packed[0].items()}
        yield _share(packed + [empty] * (rows - len(packed)), rows, process, processes)


def _share(packed, rows, process, processes):
    mine = packed[process * rows // processes : (process + 1) * rows // processes]
    return {name: np.stack([row[name] for row in mine]) for name in mine[0]}


def _pack_rows(examples: Iterator[dict[str, np.ndarray]], shape: Shape) -> Iterator[dict[str, np.ndarray]]:
    """Greedy packing in order: a row is closed when the next example does not fit, or it holds as many as it may."""
    held: list[dict[str, np.ndarray]] = []
    used = {"tokens": 0, "encoder_tokens": 0, "vectors": 0}
    room = {"tokens": shape.length, "encoder_tokens": shape.encoder_length, "vectors": shape.vectors}
    for arrays in examples:
        sizes = {name: len(arrays.get(name, ())) for name in used}
        if len(held) == shape.examples or (held and any(used[name] + sizes[name] > room[name] for name in used)):
            yield _merge(held, shape)
            held, used = [], dict.fromkeys(used, 0)
        held.append(arrays)
        used = {name: used[name] + sizes[name] for name in used}
    if held:
        yield _merge(held, shape)


def _merge(examples: list[dict[str, np.ndarray]], shape: Shape) -> dict[str, np.ndarray]:
    out = {}
    for name, length in _lengths(shape).items():
        joined = np.concatenate([a[name] for a in examples])
        out[name] = np.pad(joined, [(0, length - len(joined))] + [(0, 0)] * (joined.ndim - 1))
    for prefix, length in (("", shape.length), ("encoder_", shape.encoder_length)):
        if length:
            sizes = [len(a[f"{prefix}tokens"]) for a in examples]
            pad = (0, length - sum(sizes))
            out[f"{prefix}segment_ids"] = np.pad(np.repeat(np.arange(1, len(sizes) + 1), sizes), pad)
            out[f"{prefix}positions"] = np.pad(np.concatenate([np.arange(n) for n in sizes]), pad)
    return _with_lengths(_typed(out), shape)
