"""Measures a run: perplexity of the references, and its written reasons beside the floors."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib

from rgjax.config import NO_REWARDS, DecodeConfig, EvaluateConfig, RewardConfig
from rgjax.data.dataset import Dataset
from rgjax.errors import UserError
from rgjax.metrics import suite
from rgjax.tasks import preference
from rgjax.tasks.judges import TRAIN_LIMIT
from rgjax.tasks.rewards import choosing
from rgjax.tasks.run import Run, learned_from, read_json
from rgjax.tasks.streaming import read_reasons
from rgjax.train.workdir import replace_text

CHUNK = 256
WHOSE = "whose.json"


def evaluate(config: EvaluateConfig, decode: DecodeConfig, progress, reward: RewardConfig = NO_REWARDS) -> tuple[dict, str]:
    """(what evaluation.json holds, a table for the terminal); also writes outputs.jsonl beside it.

    The dataset may be another than the run's that has its tokenizer. Raises UserError for one that has not, a missing split, a run that can't be
    opened, or an outputs file of another length.
    """
    if config.before:
        raise UserError(f"--before={config.before} is given and --earlier names no dataset; add --earlier, or leave it out.")
    run = Run.open(config.workdir, config.checkpoint, config.base)
    dataset = run.readable(config.dataset)
    learned = learned_from(run.facts, dataset)
    plain = run.perplexity(dataset, config.split) if config.weights == "int8" else {}
    run = choosing(run.kept(config.weights), decode.method, reward, config.dataset if learned else "")
    examples = list(itertools.islice(dataset.examples(config.split), config.limit or None))
    train = list(itertools.islice(dataset.examples("train"), TRAIN_LIMIT))
    if config.split == "train":  # or retrieval would find the example itself
        own = {json.dumps(e, sort_keys=True) for e in examples}
        train = [e for e in train if json.dumps(e, sort_keys=True) not in own]
    reasons = read_reasons(config.outputs, len(examples), bool(config.limit)) if config.outputs else write(run, decode, examples, progress)
    options = {"max_words": config.max_words, "resamples": config.resamples}
    result = suite.with_floors(examples, reasons, train, **options)
    references = run.perplexity(dataset, config.split) | {"examples": dataset.count(config.split)}
    result |= {"references": references, "split": config.split, "checkpoint": run.step}
    result |= {"weights": config.weights} | ({"references_float": plain} if plain else {})
    result |= {"synthetic": dataset.manifest.get("synthetic", False), "dataset": dataset.manifest["name"], "learned_from": learned}
    result |= {"dataset_folder": str(dataset.folder.resolve()), "dataset_fingerprint": dataset.fingerprint}
    result |= {"method": "file" if config.outputs else decode.method, "outputs": config.outputs}
    text = suite.table(result)
    if not learned:
        text = f"{run.folder} did not learn from {dataset.folder}.\n" + text
    if any(example.get("rejected") for example in examples):
        result["preferences"] = found = preference.accuracies(run, dataset, config.split)
        told = ", ".join(f"{name} {share:.1%}" for name, share in found.items() if name != "pairs")
        text += f"\n{found['pairs']} pairs, judged as people did by: {told}"
    if plain:
        text += f"\nperplexity of the references {references['perplexity']:.4f} in int8, {plain['perplexity']:.4f} in float32"
    if config.against:
        others = read_reasons(config.against, len(examples), bool(config.limit))
        result["paired"] = suite.paired(examples, reasons, others, **options)
        text += "\n\nagainst " + config.against + "\n" + suite.table(result["paired"])
    folder = made_folder(config, None if learned else dataset)
    replace_text(folder / "evaluation.json", json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    rows = (json.dumps({"example": e, "reason": r}, ensure_ascii=False) + "\n" for e, r in zip(examples, reasons, strict=True))
    replace_text(folder / "outputs.jsonl", "".join(rows))
    return result | {"output": str(folder / "evaluation.json")}, text


def made_folder(config: EvaluateConfig, other: Dataset | None = None) -> pathlib.Path:
    """Where reports go: --output or the workdir, and below it where they are not of the run as it was trained, or of the `other` dataset; made if
    it is missing."""
    folder, file = pathlib.Path(config.output or config.workdir), pathlib.Path(config.outputs)
    parts = [other.folder.resolve().name if other else "", file.stem, config.weights if config.weights != "float" else ""]
    if any(parts) and not config.output:  # another system's scores are not this run's, nor are those of its rounded weights or of other texts
        whose = {"dataset": other.fingerprint if other else "", "outputs": str(file.resolve()) if file.name else "", "weights": config.weights}
        return _apart(folder.joinpath("evaluations", *filter(None, parts)), whose)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _apart(folder: pathlib.Path, whose: dict[str, str]) -> pathlib.Path:
    """The folder, or one beside it where another of the same name has its reports there; a file in it says whose they are."""
    if any(folder.glob("*.json")) and read_json(folder / WHOSE) != whose:
        alone = not whose["outputs"] and whose["weights"] == "float"
        key = whose["dataset"] if alone else hashlib.sha256(json.dumps(whose).encode()).hexdigest()
        folder = folder.with_name(f"{folder.name}-{key[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / WHOSE, json.dumps(whose, ensure_ascii=False, indent=1) + "\n")
    return folder


def write(run: Run, decode: DecodeConfig, examples: list[dict], progress) -> list[str]:
    """One reason for each example; `progress(done, total)` is told how far it is."""
    writer, reasons = run.writer(decode), []
    for at in range(0, len(examples), CHUNK):
        reasons += [r[0] for r in writer.write(examples[at : at + CHUNK], at)]
        progress(len(reasons), len(examples))
    return reasons

