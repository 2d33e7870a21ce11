"""Dataset folder -> batches: shuffle, render, pack (or bucket), batch, prefetch. Everything is a grain dataset with exact state.

A batch holds int32 arrays [rows, T]: `tokens`, `targets` (tokens shifted by one), `weights` (1 on tokens of the reason, or with
--loss_on=all on every token of the example, 0 elsewhere), `segment_ids` (which example of the row; 0 = padding) and `positions`
(restart with each example); the encoder-decoder adds `encoder_tokens`, `encoder_segment_ids` and `encoder_positions` [rows, S], and
a teacher's probabilities `teacher_ids` and `teacher_logits` (rgjax/data/teacher.py). Examples that come with precomputed vectors add
`vectors`, float32 [rows, M, Z]: the k-th is of the row's k-th example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from rgjax.config import InputConfig
from rgjax.data import teacher as teacher_lib
from rgjax.data.dataset import Dataset, Joined
from rgjax.data.template import Rendered, Template
from rgjax.errors import UserError

SHORTEST = 48  # tokens of an example that comes with a vector, for the number of vectors that a row has room for
PACKING_BINS = 64  # rows filled side by side; more pack tighter and delay the first batch


@dataclasses.dataclass(frozen=True)
class Shape:
    """Static row lengths of a batch."""

    length: int
    encoder_length: int  # 0 for decoder-only
    vectors: int = 0  # most examples in a row, where each comes with a vector; else 0

    @classmethod
    def of(cls, config: InputConfig, architecture: str) -> Shape:
        vectors = max(1, config.length // SHORTEST) if config.item_vectors or config.user_vectors else 0
        if architecture == "causal":
            return cls(config.length, 0, vectors)
        if 0 < config.decoder_length < config.target_length:
            raise UserError(
                f"--decoder_length={config.decoder_length} is below --target_length={config.target_length}; raise it, or give 0."
            )
        return cls(config.decoder_length or config.target_length, config.length, vectors)

    def scaled(self, share: float) -> Shape:
        """For one example a row."""
        return Shape(max(8, int(self.length * share)), int(self.encoder_length * share), min(self.vectors, 1))


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
    arrays = _fit(features(rendered, architecture == "seq2seq", start, config.loss_on), Shape.of(config, architecture))
    return arrays | teacher_lib.aligned(example, arrays["targets"], arrays["weights"])


def train_batches(
    dataset: Dataset, template: Template, config: InputConfig, architecture: str, *, seed: int, process: int = 0, processes: int = 1,
    replay: Sequence[Dataset] = (), teacher: teacher_lib.TeacherLogits | None = None,
) -> grain.IterDataset:  # fmt: skip
    """Endless training batches of this process's share, config.batch_size / processes rows each.

    Of the examples config.replay_share come from the training splits of `replay`, taken together, in an order of their own.
    `teacher` adds its probabilities to the examples of `dataset`.
    Raises UserError when the batch does not divide among the processes or is larger than the data.
    """
    count, shape = dataset.count("train"), Shape.of(config, architecture)
    if config.batch_size % processes:
        raise UserError(f"--batch_size={config.batch_size} does not divide among {processes} processes; take a multiple.")
    if config.batch_size > count:
        raise UserError(f"--batch_size={config.batch_size} is larger than the {count} training examples; lower it.")
    rows, encoder = config.batch_size // processes, architecture == "seq2seq"

    def render(example: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return as_fed(example, template, config, architecture, with_control=rng.random() >= config.control_dropout)

    own = teacher.beside(dataset.source("train")) if teacher else dataset.source("train")
    sources = [own, *(earlier.source("train") for earlier in replay)]
    if not config.packing:
        return _bucketed(sources, render, template, config, shape, rows, encoder, seed, process, processes)

    def stream(source, seed: int) -> grain.MapDataset:  # each process takes its share of either, so that all mix alike
        return grain.MapDataset.source(source).seed(seed).shuffle().random_map(render).repeat()[process::processes]

    mixed = stream(sources[0], seed)
    if replay:
        share = config.replay_share
        mixed = grain.MapDataset.mix([mixed, stream(Joined(sources[1:]), seed + 1)], [1 - share, share])
    ds = mixed.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=64))
    lengths = _lengths(shape) | (dict.fromkeys(teacher_lib.FIELDS, shape.length) if teacher else {})
    ds = grain.experimental.FirstFitPackIterDataset(
        ds, length_struct=lengths, num_packing_bins=PACKING_BINS, seed=seed, shuffle_bins=True
    )
    return _prefetch(ds.map(_from_packed).batch(rows, drop_remainder=True), config)


def _lengths(shape: Shape) -> dict[str, int]:
    lengths = {"tokens": shape.length, "targets": shape.length, "weights": shape.length}
    lengths |= {"vectors": shape.vectors} if shape.vectors else {}
    return lengths | ({"encoder_tokens": shape.encoder_length} if shape.encoder_length else {})


def _fit(arrays: dict[str, np.ndarray], shape: Shape) -> dict[str, np.ndarray]:
    """Cuts to the row; only a prompt of title and control codes alone can exceed the template's budget."""
    lengths = _lengths(shape)
    return {name: values[: lengths.get(name, shape.length)] for name, values in arrays.items()}


def _from_packed(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {"segment_ids": row["tokens_segment_ids"], "positions": row["tokens_positions"]}
    out |= {name: row[name] for name in ("tokens", "targets", "weights")}
    if "encoder_tokens" in row:
        names = ("encoder_tokens", "encoder_tokens_segment_ids", "encoder_tokens_positions")
        out |= {name.replace("_tokens_", "_"): row[name] for name in names}
    return _typed(out) | {name: row[name] for name in (*teacher_lib.FIELDS, "vectors") if name in row}


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
            out |= {f"{prefix}segment_ids": np.zeros((rows, length), np.int32), f"{prefix}positions": np.zeros((rows, length), np.int32)}
    for i, arrays in enumerate(examples):
        for name, values in arrays.items():
            out[name][i, : len(values)] = values
        for prefix in ("", "encoder_") if shape.encoder_length else ("",):
            n = len(arrays[f"{prefix}tokens"])
            out[f"{prefix}segment_ids"][i, :n] = 1
            out[f"{prefix}positions"][i, :n] = np.arange(n)
    return out


def _bucketed(sources, render, template, config, shape, rows, encoder, seed, process, processes) -> grain.IterDataset:
    """One example a row; every batch is of one length bucket, and which batch comes i-th follows from the seed alone."""
    source, shapes = Joined(sources), [shape.scaled(share) for share in _shares(config.buckets)]
    limits = np.array([[s.length, s.encoder_length] for s in shapes])
    bucket = np.array([_bucket_of(features(template.render(source[i]), encoder, 0), limits) for i in range(len(source))])
    plan = _Plan(bucket, len(shapes), rows * processes, seed, len(sources[0]), config.replay_share)

    def batch(index: int, _) -> dict[str, np.ndarray]:
        which, members = plan[index]
        numbers = range(process, len(members), processes)  # the same draws, however many processes share the batch
        made = [render(source[int(members[n])], np.random.default_rng((seed, index, n))) for n in numbers]
        return pad_rows([_fit(m, shapes[which]) for m in made], shapes[which], rows)

    ds = grain.MapDataset.range(plan.batches_per_epoch).repeat().map_with_index(batch)
    return _prefetch(ds.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=config.prefetch)), config)


def _shares(text: str) -> list[float]:
    """The buckets' shares of the row, ascending, the whole row last; raises UserError on anything else than shares."""
    try:
        shares = {float(part) for part in text.split(",")}
    except ValueError:
        shares = {-1.0}
    if not all(0 < share <= 1 for share in shares):
        raise UserError(f"--buckets={text} is not understood; write shares of the row above 0 and up to 1, as 0.25,0.5,1.")
    return sorted(shares | {1.0})


def _bucket_of(arrays: dict[str, np.ndarray], limits: np.ndarray) -> int:
    """The smallest bucket that holds the example; the last where none does."""
    size = np.array([len(arrays["tokens"]), len(arrays.get("encoder_tokens", ()))])
    fits = (size <= limits).all(axis=1)
    return int(np.argmax(fits)) if fits.any() else len(limits) - 1


class _Plan:
    """Which examples form the i-th batch, for any i, without state: a fresh permutation of every bucket each epoch.

    What does not fill a batch of its bucket moves up to the next larger one; what is left over at the very end, less than a
    batch, waits for an epoch with better luck. `bucket` holds each example's; those from number `own` on are replayed: an epoch
    is all of the others and, of these, as many of an endless row of permutations as make `share` of the whole.
    """

    def __init__(self, bucket: np.ndarray, buckets: int, rows: int, seed: int, own: int, share: float):
        self.bucket, self.buckets, self.rows, self.seed, self.own = bucket, buckets, rows, seed, own
        self.drawn = max(1, round(own * share / (1 - share))) if len(bucket) > own else 0
        self.batches_per_epoch = (own + self.drawn) // rows
        self._cached: tuple[int, list] = (-1, [])

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        epoch, i = divmod(index, self.batches_per_epoch)
        if self._cached[0] != epoch:
            self._cached = (epoch, self._epoch(epoch, np.random.default_rng((self.seed, epoch))))
        return self._cached[1][i]

    def _epoch(self, epoch: int, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
        batches, over = [], np.array([], np.int64)
        members = np.concatenate([np.arange(self.own), self._replayed(epoch)])
        for which in range(self.buckets):
            order = rng.permutation(np.concatenate([over, members[self.bucket[members] == which]]))
            full = len(order) // self.rows * self.rows
            batches += [(which, chosen) for chosen in order[:full].reshape(-1, self.rows)]
            over = order[full:]
        return [batches[j] for j in rng.permutation(len(batches))]

    def _replayed(self, epoch: int) -> np.ndarray:
        if not self.drawn:
            return np.array([], np.int64)
        count = len(self.bucket) - self.own
        turns, places = np.divmod(np.arange(epoch * self.drawn, (epoch + 1) * self.drawn), count)
        orders = {turn: np.random.default_rng((self.seed, int(turn), 1)).permutation(count) for turn in np.unique(turns)}
        return np.array([self.own + orders[turn][place] for turn, place in zip(turns, places, strict=True)], np.int64)


def _prefetch(ds: grain.IterDataset, config: InputConfig) -> grain.IterDataset:
    if config.workers:
        return ds.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=config.prefetch))
    return grain.experimental.ThreadPrefetchIterDataset(ds, prefetch_buffer_size=config.prefetch)


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
    """Greedy packing in order: a row is closed when the next example does not fit."""
    held: list[dict[str, np.ndarray]] = []
    used = {"tokens": 0, "encoder_tokens": 0, "vectors": 0}
    room = {"tokens": shape.length, "encoder_tokens": shape.encoder_length, "vectors": shape.vectors}
    for arrays in examples:
        sizes = {name: len(arrays.get(name, ())) for name in used}
        if held and any(used[name] + sizes[name] > room[name] for name in used):
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
    return _typed(out)
