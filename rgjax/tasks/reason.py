"""The main task: write the reason, given shopper, history, item and control codes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from rgjax.config import NO_ADAPTER, AdapterConfig, DecodeConfig, InputConfig, ModelConfig, planned
from rgjax.data import pipeline, words
from rgjax.data.chat import ChatPrompt
from rgjax.data.dataset import Dataset, folders
from rgjax.data.placeholders import WithPlaceholders
from rgjax.data.shape import Shape
from rgjax.data.streams import Streams
from rgjax.data.teacher import TeacherLogits
from rgjax.data.template import Rendered, Template
from rgjax.data.tokenizer import Tokenizer
from rgjax.data.vectors import Vectors
from rgjax.decode import postprocess, rerank
from rgjax.decode.writer import Writer
from rgjax.errors import UserError
from rgjax.models import quantized
from rgjax.models.adapted import PREPENDED, AdaptedFactory
from rgjax.models.build import ModelFactory
from rgjax.train import perturbation
from rgjax.train.contrast import Swaps, contrast_sums
from rgjax.train.distillation import Distillation, distillation_sums
from rgjax.train.loss import asked, cross_entropy_sums, rdrop_sums

NAME = "reason"
Liked = Callable[[Sequence[dict], Sequence[str]], Sequence[float]]  # (examples, a text for each) -> a figure for each, more is better
PROMPTS = {"markers": Template, "chat": ChatPrompt}


def sums(
    model, batch: dict, key: jax.Array | None, smoothing: float = 0.0, rdrop: float = 0.0, distill: Distillation | None = None,
    fgm: float = 0.0, swaps: Swaps | None = None, most: int = 0,
) -> dict[str, jax.Array]:  # fmt: skip
    """Float32 sums over target tokens: `loss`, which alone has a gradient, `nll`, `correct` and `tokens`.

    In training the loss is smoothed, with R-Drop that of two passes, with a teacher in the batch in part the divergence from it, and with FGM
    also that of the examples moved against it (`nll` and `correct` are then those of the examples as they are). With `swaps` the contrast of codes
    is added, and `codes_told` are the tokens of examples that are likelier under their own code; those without codes count as not. Where no row in
    training has more than `most` target tokens (0: not known), the model's last layer answers at so many positions alone.
    """
    head, shrink = model.head()
    if most and key is not None:
        batch = asked(batch, most)
    smoothing = smoothing if key is not None else 0.0
    what, told = (head, batch["targets"], batch["weights"]), {}
    if rdrop and key is not None:
        passes = [model(batch, one) for one in jax.random.split(key)]
        found = rdrop_sums(*passes, *what, rdrop, shrink, smoothing)
    elif "teacher_ids" in batch:
        taught = (batch["teacher_ids"], batch["teacher_logits"])
        found = distillation_sums(model(batch, key), *what, *taught, distill, shrink, smoothing)
    else:
        plain = lambda hidden: cross_entropy_sums(hidden, *what, shrink, smoothing)
        found = plain(hidden := model(batch, key))
        if swaps is not None and key is not None:
            contrast, told["codes_told"] = contrast_sums(model, hidden, batch, key, swaps)
            found = (found[0] + swaps.weight * contrast, *found[1:])
        if fgm and key is not None:
            found = (found[0] + plain(model(batch | perturbation.shifts(model, batch, key, fgm, smoothing), key))[0], *found[1:])
    return dict(zip(("loss", "nll", "correct", "tokens"), found, strict=True)) | told


class ReasonTask:
    """Ties a tokenizer, the template and the model's configuration together."""

    def __init__(self, tokenizer: Tokenizer, input_config: InputConfig, model_config: ModelConfig, adapter: AdapterConfig = NO_ADAPTER):
        if model_config.architecture == "encoder":
            raise UserError("--architecture=encoder writes no text; take 'causal' or 'seq2seq', or another --init_from.")
        if model_config.block != "transformer":
            raise UserError(f"--block={model_config.block} is for models of behaviour; a generator of reasons needs --block=transformer.")
        if model_config.architecture == "seq2seq" and input_config.loss_on == "all":
            raise UserError("--loss_on=all needs --architecture=causal; an encoder reads the prompt and predicts none of it.")
        longest = max(input_config.length, input_config.target_length) + (adapter.virtual_tokens if adapter.adapter == "prefix" else 0)
        if longest > model_config.max_positions:
            raise UserError(f"Rows of {longest} tokens exceed --max_positions={model_config.max_positions}; raise it.")
        if 0 < model_config.embeddings < tokenizer.vocab_size:
            raise UserError(f"--embeddings={model_config.embeddings} is less than the {tokenizer.vocab_size} tokens; leave it out or raise it.")
        self.tokenizer, self.input, self.architecture = tokenizer, input_config, model_config.architecture
        room = adapter.virtual_tokens if adapter.adapter in PREPENDED else 0
        fitted = dataclasses.replace(input_config, length=input_config.length - room)
        self.template = PROMPTS[input_config.prompt](tokenizer, fitted, model_config.architecture)
        self.vectors = _vectors(input_config, adapter)
        if room:
            self.template = WithPlaceholders(self.template, room, self.vectors)
        self.factory = ModelFactory(model_config, model_config.embeddings or tokenizer.vocab_size)
        if adapter.adapter != "none":
            self.factory = AdaptedFactory(self.factory, adapter, self.vectors.width if self.vectors else 0)

    def loss(self, smoothing: float, rdrop: float = 0.0, distill: Distillation | None = None, fgm: float = 0.0, swaps: Swaps | None = None):
        """The step's loss function; raises UserError for R-Drop without dropout, whose two passes would be one, and for two that can't be joined."""
        given = {"code_contrast": swaps and swaps.weight, "fgm": fgm, "rdrop": rdrop, "distill": distill is not None}
        if len(both := [name for name, value in given.items() if value]) > 1:
            raise UserError(f"--{both[0]}={given[both[0]]:g} and --{both[1]} are both given, and no loss joins them; leave one out.")
        if rdrop and not self.factory.config.dropout:
            raise UserError(f"--rdrop={rdrop:g} compares two passes with different dropout and --dropout is 0; raise --dropout, or leave it out.")
        return functools.partial(sums, smoothing=smoothing, rdrop=rdrop, distill=distill, fgm=fgm, swaps=swaps, most=self.most_targets)

    @property
    def most_targets(self) -> int:
        """Most target tokens of a row in training, 0 where nothing bounds them; a decoder beside an encoder has hardly any other."""
        alone = self.architecture == "causal" and not self.input.packing and self.input.loss_on == "reason"
        return self.input.target_length if alone else 0

    def replayed(self, dataset: Dataset) -> list[Dataset]:
        """The datasets of --replay; raises UserError for one whose tokenizer is not that of `dataset`."""
        found = [Dataset.open(folder) for folder in folders(self.input.replay)]
        for earlier in found:
            same_tokenizer("replay", earlier, dataset)
        return found

    @property
    def rendering(self) -> dict:
        """What decides the target tokens of an example and what their prompt shows, beside the tokenizer."""
        names = ("target_length", "max_history", "history_order", "copy_slots", "prompt", "loss_on")
        found = {name: getattr(self.input, name) for name in names} | {"prompt_tokens": getattr(self.template, "inner", self.template).budget}
        return found | ({"instruction": self.input.instruction} if self.input.prompt == "chat" else {})

    def teacher(self, dataset: Dataset, temperature: float) -> TeacherLogits | None:
        """The probabilities of --distill, None without it; raises UserError unless they are of `dataset`, read as this task reads it."""
        if not self.input.distill:
            return None
        found = TeacherLogits.open(self.input.distill, temperature)
        found.check(dataset, self.rendering)
        return found

    def training_data(
        self, dataset: Dataset, seed: int, replay: Sequence[Dataset] = (), teacher: TeacherLogits | None = None, share: tuple[int, int] = (0, 1)
    ) -> Streams:
        """A checkpointable iterator of training batches, with the part of `replay` mixed in, or `teacher` beside.

        `share` (k, n) gives the k-th of n equal parts of each batch's rows, `parallel.mesh.share` of several processes.
        """
        where = {"process": share[0], "processes": share[1], "replay": replay, "teacher": teacher}
        return pipeline.train_batches(dataset, self.template, self.input, self.architecture, seed=seed, **where)

    def evaluation_data(self, dataset: Dataset, split: str, limit: int = 0, loss_on: str = "", share: tuple[int, int] = (0, 1)) -> Iterator[dict]:
        """The rows of `share` (as above) of every batch of a split (at most `limit` batches; 0 = all); none if the split is empty.

        `loss_on` overrides the run's own choice of the tokens that are scored.
        """
        if not dataset.count(split):
            return iter(())
        config = dataclasses.replace(self.input, loss_on=loss_on or self.input.loss_on)
        where = {"process": share[0], "processes": share[1]}
        return pipeline.eval_batches(dataset, split, self.template, config, self.architecture, limit=limit, **where)

    def in_int8(self) -> ReasonTask:
        """The same task for weights that `models.quantized.in_int8` made, to write and measure with."""
        made = copy.copy(self)
        made.factory = quantized.lighter(self.factory)
        return made

    def one_a_row(self, examples: Iterable[dict], rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches [rows, T] of the examples, each alone in its row, with loss on its reason only; the last has empty rows."""
        config = dataclasses.replace(self.input, loss_on="reason")
        shape, left = Shape.of(config, self.architecture, alone=True), iter(examples)
        while some := list(itertools.islice(left, rows)):
            yield pipeline.pad_rows([pipeline.as_fed(e, self.template, config, self.architecture) for e in some], shape, rows)

    def writer(self, params: dict, config: DecodeConfig, liked: Liked | None = None) -> ReasonWriter:
        """Writes reasons with these parameters; `liked` chooses among those of --method=best. Raises UserError for decoding options that contradict
        each other."""
        config = planned(config)
        if config.method == "best" and not liked:
            raise UserError("--method=best chooses by --rewards, which only launch.generate and launch.evaluate read; take another --method here.")
        writer = Writer(self.factory, params, self.tokenizer, config, self.template.ends, self.template.written)
        return ReasonWriter(self.template, writer, config, liked)


def _vectors(config: InputConfig, adapter: AdapterConfig) -> Vectors | None:
    """The tables that --adapter=vectors reads; raises UserError when they are given without it, or it without them."""
    given = config.item_vectors or config.user_vectors
    if adapter.adapter == "vectors":
        if not given:
            raise UserError("--adapter=vectors reads precomputed vectors; give --item_vectors, --user_vectors or both.")
        return Vectors(config)
    if given:
        raise UserError(f"{given} is read by --adapter=vectors only; add that, or leave --item_vectors and --user_vectors out.")
    return None


@dataclasses.dataclass
class ReasonWriter:
    """Examples in, finished texts out."""

    template: Template
    writer: Writer
    config: DecodeConfig
    liked: Liked | None = None

    def using(self, params: dict) -> ReasonWriter:
        """Itself, writing with these parameters from now on; nothing is compiled anew."""
        self.writer.params = params
        return self

    def write(self, examples: list[dict], first_row: int = 0, rows: Sequence[int] | None = None) -> list[list[str]]:
        """For each example its reasons, best first: one, or `n_best`; they hold the words of its "require". `first_row` numbers the examples
        within the whole input, or `rows` where they do not follow each other."""
        rendered = [self._rendered({**example, "reason": ""}) for example in examples]
        required, found = [self.required(example) for example in examples], []
        for told, r, hypotheses in zip(required, rendered, self.writer.write(rendered, first_row, rows), strict=True):
            spoken = [h._replace(ids=self.template.spoken(h.ids)) for h in hypotheses]
            found.append([postprocess.finish(h, r.surfaces, self.template.tokenizer, self.config, told) for h in spoken])
        if self.config.method == "mbr":
            found = [[texts[i] for i in rerank.best_first(texts, e, self.config.ground_weight)] for e, texts in zip(examples, found, strict=True)]
        if self.config.method == "best":
            found = self._by_liking(examples, found)
        for told, texts in zip(required, found, strict=True):
            texts.sort(key=lambda text, told=told: len(words.missing(text, told)))  # stable, and 0 for nearly all
        return [_distinct(texts)[: self.config.n_best] for texts in found]

    def _by_liking(self, examples: list[dict], found: list[list[str]]) -> list[list[str]]:
        """Each example's texts, most liked first; all are judged at once."""
        asked = [example for example, texts in zip(examples, found, strict=True) for _ in texts]
        figures = iter(self.liked(asked, [text for texts in found for text in texts]))
        return [[text for _, text in sorted([(next(figures), text) for text in texts], key=lambda one: -one[0])] for texts in found]

    def required(self, example: dict) -> list[str]:
        """The words that a reason for this example must hold; raises UserError where they can't all be written."""
        return self.writer.required(tuple(example.get("require") or ()))

    def _rendered(self, example: dict) -> Rendered:
        asked = {"required": tuple(example.get("require") or ()), "control": example.get("control") or {}}
        found = dataclasses.replace(self.template.render(example), **asked)
        if self.config.guidance == 1.0:
            return found
        return dataclasses.replace(found, plain_ids=self.template.render(example, with_control=False).prompt_ids)


def _distinct(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def sample_rows(examples: list[dict], reasons: list[list[str]], step: int) -> list[dict]:
    """Rows of samples.jsonl: what was read, what the reference says, what was written."""
    return [
        {
            "step": step,
            "item": e["item"].get("title") or e["item"].get("id") or "",
            "history": [h.get("title") or "" for h in (e.get("history") or [])[-5:]],
            "control": e.get("control") or {},
            "reference": e.get("reason") or "",
            "reason": r[0],
        }
        for e, r in zip(examples, reasons, strict=True)
    ]


def same_tokenizer(flag: str, earlier: Dataset, dataset: Dataset) -> None:
    """Raises UserError when the dataset that `flag` names was not prepared with the tokenizer of `dataset`."""
    if earlier.manifest["tokenizer"]["sha256"] != dataset.manifest["tokenizer"]["sha256"]:
        raise UserError(
            f"--{flag}={earlier.folder} has another tokenizer than --dataset={dataset.folder}; prepare one of them again with "
            f"the other's, as --tokenizer={dataset.tokenizer_folder}."
        )


def dataset_tokenizer(folder: str | pathlib.Path) -> tuple[Dataset, Tokenizer]:
    """A dataset and its tokenizer; raises UserError when either is unusable."""
    dataset = Dataset.open(folder)
    tokenizer = Tokenizer.load(dataset.tokenizer_folder)
    if tokenizer.checksum() != dataset.manifest["tokenizer"]["sha256"]:
        raise UserError(f"{dataset.tokenizer_folder} is not the tokenizer this dataset was prepared with; restore it or prepare again.")
    return dataset, tokenizer
