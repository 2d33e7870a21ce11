"""A dataset with its training reasons written by a teacher: distillation by sequences (Kim & Rush 2016, arXiv:1606.07947)."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable

from rgjax import config as config_lib
from rgjax.config import DecodeConfig
from rgjax.data import records
from rgjax.data.dataset import Dataset
from rgjax.data.shards import ShardWriter
from rgjax.data.staging import staging, write_json
from rgjax.errors import UserError
from rgjax.tasks.run import Run
from rgjax.tasks.streaming import generate_file
from rgjax.tasks.teach import teacher_facts

CHUNK = 256  # examples written between two points from which the command can go on


def rewrite(run: Run, dataset: Dataset, decode: DecodeConfig, output: str, overwrite: bool, progress: Callable[[int, int], None]) -> dict:
    """Writes `output`: the training split with the run's reasons (each of `n_best`), all else as it is; returns the summary.

    The reasons gather beside `output` first and are continued by the same command; the folder appears whole or not at all. Raises
    UserError when it exists, or no reason was written.
    """
    target = pathlib.Path(output)
    if target.exists() and not overwrite:
        raise UserError(f"--output={output} exists already; give another folder or add --overwrite.")
    facts = teacher_facts(run) | {"decode": config_lib.to_json(decode), "dataset_fingerprint": dataset.fingerprint}
    work = target.absolute().parent / f".{target.name}.reasons"
    written = work / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.jsonl"  # other reasons gather in another file
    if not written.exists():
        work.mkdir(parents=True, exist_ok=True)
        _write_reasons(run, dataset, decode, written, facts, progress)
    with staging(target, overwrite) as folder:
        manifest = _write_dataset(dataset, written, folder, facts)
    shutil.rmtree(work)
    return {"dataset": output, "counts": manifest["counts"], **{k: manifest["distilled"][k] for k in ("empty", "teacher")}}


def _write_reasons(run: Run, dataset: Dataset, decode: DecodeConfig, written: pathlib.Path, facts: dict, progress) -> None:
    """The teacher's reasons of the training split, one line an example."""
    inputs = written.with_name("inputs.jsonl")
    with inputs.open("w", encoding="utf-8") as file:
        for example in dataset.examples("train"):
            file.write(records.encode({k: v for k, v in example.items() if k != "reason"}) + "\n")
    writer = run.task.writer(run.params, decode)
    generate_file(
        str(inputs), str(written), writer.write, settings=facts, controls=dataset.controls, override={},
        chunk=max(CHUNK, 4 * writer.writer.rows), overwrite=False, progress=progress,
    )  # fmt: skip


def _write_dataset(dataset: Dataset, written: pathlib.Path, folder: pathlib.Path, facts: dict) -> dict:
    """All files of the dataset but its training shards, those anew, and the manifest, which is returned."""
    mine = {"dataset.json", *(shard["file"] for shard in dataset.manifest["splits"]["train"])}
    shutil.copytree(dataset.folder, folder, dirs_exist_ok=True, ignore=lambda place, names: mine & set(names))
    writer, empty = ShardWriter(folder, "train", dataset.manifest["config"]["shard_examples"]), 0
    try:
        with written.open(encoding="utf-8") as lines:
            for example, line in zip(dataset.examples("train"), lines, strict=True):
                row = json.loads(line)
                reasons = [reason for reason in row.get("reasons", [row["reason"]]) if reason.strip()]
                empty += not reasons
                for reason in reasons:
                    writer.write(records.encode(example | {"reason": reason}).encode())
    finally:
        writer.abandon()
    if not (count := sum(writer.counts)):
        raise UserError(f"The teacher of --workdir={facts['workdir']} wrote nothing for any training example; train it longer.")
    m = dataset.manifest
    manifest = m | {
        "name": f"{m['name']}-distilled",
        "counts": m["counts"] | {"train": count},
        "splits": m["splits"] | {"train": writer.close()},
        "distilled": {"teacher": facts["teacher"], "from": facts["dataset_fingerprint"], "decode": facts["decode"], "empty": empty},
    }
    write_json(folder / "dataset.json", manifest)
    return manifest
