"""What a folder holds, without loading its weights: a Hugging Face model, a run, a dataset or an adapter, and samples as training reads them."""

from __future__ import annotations

import json
import math
import pathlib
import re

from flax import nnx

from rgjax import trees
from rgjax.config import NO_ADAPTER, InputConfig, InspectConfig, ModelConfig
from rgjax.data.template import Template
from rgjax.data.tokenizer import ITEM_SLOT, MARKERS, Tokenizer
from rgjax.errors import UserError
from rgjax.hf import adapter_folder, families
from rgjax.hf.load import Pretrained
from rgjax.hf.sentence import Sentence
from rgjax.hf.table import resolved
from rgjax.models.build import ModelFactory
from rgjax.tasks import code_words
from rgjax.tasks import run as run_lib
from rgjax.tasks.reason import NAME, ReasonTask, dataset_tokenizer
from rgjax.tasks.samples import Sample, samples_of
from rgjax.train import tuning, workdir
from rgjax.train.checkpoint import Checkpoints

PARTS = {"entrance": "embedding", **{name: name for name in ("embedding", "encoder", "decoder", "adapter")}}  # what is left is the head
SHAPE = ("architecture", "layers", "width", "heads", "kv_heads", "head_dim", "mlp_width", "activation", "norm", "positions", "max_positions", "tied")
_SLOT = re.compile(r"<([ha])\d+>")
_CODE = re.compile(r"<\|([^=|]+)=(.+)\|>")


def inspect(config: InspectConfig, inputs: InputConfig, given: set[str]) -> tuple[dict, list[Sample]]:
    """(facts that go to JSON, samples) of `config.path`; `given` are the flags of `inputs` that were set.

    Raises UserError when the folder is none of the kinds or can't be used.
    """
    path = pathlib.Path(config.path)
    if not path.is_dir():
        raise UserError(f"{path} is no folder; give a Hugging Face folder, a workdir, a dataset or an adapter.")
    if (path / "dataset.json").is_file():
        return _dataset(path, config, inputs)
    if config.code_words:
        raise UserError(f"--code_words={config.code_words} is learned from a dataset, and {path} is none; give the folder of a dataset.")
    if workdir.is_run(path):
        return _run(path, config, inputs, given)
    if adapter_folder.is_adapter(path):
        return {"path": str(path), "kind": "adapter", "adapter": adapter_folder.read(path)}, []
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json, dataset.json or adapter_config.json; give a model, a run, a dataset or an adapter.")
    return _folder(path, config, inputs)


def trainable_count(factory: ModelFactory, facts: dict | None = None) -> int:
    """How many of the model's parameters training changes; `facts` is a run's config.json (without it, all of them)."""
    trained = tuning.chooser(facts["adapter"]) if facts else tuning.chooser(NO_ADAPTER)
    return sum(math.prod(leaf.shape) for path, leaf in trees.flat(nnx.to_pure_dict(factory.abstract)) if trained(path))


def _folder(path: pathlib.Path, config: InspectConfig, inputs: InputConfig) -> tuple[dict, list[Sample]]:
    source = Pretrained.open(str(path))
    own = source.own_config()
    factory = ModelFactory(own, own.embeddings)
    source.check(factory)
    stored: dict[str, int] = {}
    for tensor in source.folder.tensors.values():
        if not isinstance(tensor, str):
            stored[str(tensor.dtype)] = stored.get(str(tensor.dtype), 0) + tensor.nbytes
    facts = {"path": str(path), "kind": "folder"} | _model(own, factory, source.family.name)
    facts["architecture"]["class"] = (source.folder.config.get("architectures") or [source.family.model_class])[0]
    facts["memory"] = {"stored_bytes": stored} | facts["memory"]
    if (path / "tokenizer.json").is_file():
        facts |= _tokenizer(Tokenizer.load(path), own.embeddings, path)
    if source.family.encoder:
        facts["vectors"] = _vectors(path, own.max_positions)
    if not inputs.dataset:
        return facts, []
    dataset, tokenizer = dataset_tokenizer(inputs.dataset)
    task = ReasonTask(tokenizer, inputs, source.configure(ModelConfig(), set(), tokenizer))
    return _with_samples(facts, samples_of(dataset, task.template, inputs, task.architecture, config.split, config.samples))


def _vectors(path: pathlib.Path, positions: int) -> dict:
    """How an encoder makes one vector of a text, if the folder says so; what we do not compute is told, as the model alone may still serve."""
    try:
        found = Sentence.read(path, positions)
    except UserError as error:
        return {"refused": str(error)}
    return {"pooling": found.pooling, "normalize": found.normalize, "longest": found.longest} if found else {}


def _run(path: pathlib.Path, config: InspectConfig, inputs: InputConfig, given: set[str]) -> tuple[dict, list[Sample]]:
    if other := sorted(given - {"dataset"}):
        raise UserError(f"--{other[0]} is given, and {path} shows what its own run reads; leave the flag out.")
    stored = workdir.read(path)
    if stored.get("task", NAME) != NAME:
        raise UserError(f"{path} is a run of --task={stored['task']}, which writes no text; launch.report shows it, and launch.evaluate measures it.")
    tokenizer = run_lib.open_tokenizer(path, stored)
    task = ReasonTask(tokenizer, stored["input"], stored["model"], stored["adapter"])
    fits = next((name for name, family in families.FAMILIES.items() if family.refuses(stored["model"]) is None), "none")
    facts = {"path": str(path), "kind": "run"} | _model(stored["model"], task.factory, fits, stored)
    facts |= _tokenizer(tokenizer, task.factory.vocab_size, path / "tokenizer") | {"checkpoints": _checkpoints(path)}
    if (adapter := stored["adapter"].adapter) != "none":
        facts["trained_adapter"] = {"type": adapter, "base": stored["train"].init_from}
    facts["dataset"] = inputs.dataset or stored["input"].dataset
    facts["dataset_found"] = (pathlib.Path(facts["dataset"]) / "dataset.json").is_file()
    if not config.samples or not (inputs.dataset or facts["dataset_found"]):
        return facts, []
    dataset = run_lib.open_dataset(stored, inputs.dataset)
    return _with_samples(facts, samples_of(dataset, task.template, stored["input"], task.architecture, config.split, config.samples))


def _dataset(path: pathlib.Path, config: InspectConfig, inputs: InputConfig) -> tuple[dict, list[Sample]]:
    dataset, tokenizer = dataset_tokenizer(path)
    dataset.verify()
    facts = {"path": str(path), "kind": "dataset", "counts": dataset.manifest["counts"], "controls": dataset.controls}
    facts |= _tokenizer(tokenizer, tokenizer.vocab_size, dataset.tokenizer_folder)
    samples = samples_of(dataset, Template(tokenizer, inputs), inputs, "causal", config.split, config.samples)
    facts |= {"code_words": code_words.write(dataset, tokenizer, config.code_words)} if config.code_words else {}
    return _with_samples(facts, samples)


def _with_samples(facts: dict, found: list[Sample]) -> tuple[dict, list[Sample]]:
    numbers = [{"example": s.index, "tokens": s.tokens, "target_tokens": s.target_tokens, "truncated": s.truncated} for s in found]
    return facts | {"samples": numbers}, found


def _model(config: ModelConfig, factory: ModelFactory, family: str, run: dict | None = None) -> dict:
    """The facts `architecture`, `parameters` and `memory`."""
    full = resolved(config)
    names = SHAPE + (("encoder_layers",) if full.architecture == "seq2seq" else ())
    shape = {"family": family} | {name: getattr(full, name) for name in names}
    parts = dict.fromkeys(("embedding", "encoder", "decoder", "head", "adapter"), 0)
    for name, leaf in trees.flat(nnx.to_pure_dict(factory.abstract)):
        part = "head" if name == "embedding.output" else PARTS.get(name.split(".")[0], "head")
        parts[part] += math.prod(leaf.shape)
    total = factory.count()
    trainable = trainable_count(factory, run)
    counts = {part: n for part, n in parts.items() if n} | {"total": total, "trainable": trainable, "frozen": total - trainable}
    return {"architecture": shape, "parameters": counts, "memory": _memory(total, trainable, run)}


def _memory(total: int, trainable: int, run: dict | None) -> dict[str, int]:
    """Bytes over all devices together that training holds between steps, and the gradients; activations come on top."""
    parts = {"parameters_bytes": 4 * total, "gradients_bytes": 4 * trainable, "moments_bytes": 8 * trainable}
    if run:
        parts |= {"average_bytes": 4 * trainable} if run["optimizer"].ema else {}
        parts |= {"importance_bytes": 8 * trainable} if run["adapter"].adapter == "adalora" else {}
        parts |= {"consolidation_bytes": 8 * trainable} if run["train"].ewc else {}
    return parts | {"training_bytes": sum(parts.values())}


def _tokenizer(tokenizer: Tokenizer, rows: int, folder: pathlib.Path) -> dict:
    """The facts `tokenizer`, `special_tokens`, `control_codes`, `slots` and `chat_template`."""
    backend = tokenizer.backend
    ids = set(backend.get_vocab(with_added_tokens=True).values())
    kind = type(backend.model).__name__ + (" (byte-level)" if type(backend.decoder).__name__ == "ByteLevel" else "")
    special = {t.content: i for i, t in sorted(backend.get_added_tokens_decoder().items()) if t.special}
    roles = {"pad": tokenizer.pad, "eos": tokenizer.eos, "bos": tokenizer.bos} | tokenizer.named
    codes: dict[str, list[str]] = {}
    for token in special:
        if found := _CODE.fullmatch(token):
            codes.setdefault(found[1], []).append(found[2])
    slots = {"history": sum(t.startswith("<h") for t in special if _SLOT.fullmatch(t)), "item": int(ITEM_SLOT in special)}
    slots["attributes"] = sum(t.startswith("<a") for t in special if _SLOT.fullmatch(t))
    plain = {t: i for t, i in special.items() if not (_SLOT.fullmatch(t) or _CODE.fullmatch(t) or t == ITEM_SLOT or t in MARKERS)}
    return {
        "tokenizer": {"kind": kind, "vocabulary": len(ids), "rows": rows, "unused_rows": rows - len({i for i in ids if i < rows})},
        "special_tokens": {"roles": {role: [token, backend.token_to_id(token)] for role, token in roles.items()}, "others": plain},
        "markers": {t: special[t] for t in MARKERS if t in special},
        "control_codes": codes,
        "slots": slots,
        "chat_template": _has_chat_template(folder),
    }


def _has_chat_template(folder: pathlib.Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    file = folder / "tokenizer_config.json"
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template")) if file.is_file() else False
    except (ValueError, AttributeError):
        raise UserError(f"{file} is damaged (no JSON object); fetch it again.") from None


def _checkpoints(path: pathlib.Path) -> dict:
    if not (path / "checkpoints").is_dir():
        return {"latest": None, "best": None}
    checkpoints = Checkpoints(path / "checkpoints", reading=True)
    found = {"latest": checkpoints.latest, "best": checkpoints.best}
    checkpoints.close()
    return found
