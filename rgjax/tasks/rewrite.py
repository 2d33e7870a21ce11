"""A dataset with its training reasons written by a teacher: distillation by sequences (Kim & Rush 2016, arXiv:1606.07947)."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterable

from rgjax.config import DecodeConfig
from rgjax.data import records
from rgjax.data.dataset import Dataset
from rgjax.data.shards import ShardWriter
from rgjax.data.staging import staging, write_json
from rgjax.errors import UserError
from rgjax.tasks import decoding
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
    facts = teacher_facts(run) | {"decode": decoding.facts(decode), "dataset_fingerprint": dataset.fingerprint}
    work = target.absolute().parent / f".{target.name}.reasons"
    written = work / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.jsonl"  # other reasons gather in another file
    if not written.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_reasons(run, dataset, decode, written, facts, progress)
    found = [[reason for reason in reasons if reason.strip()] for reasons in read_reasons(written)]
    if not any(found):
        raise UserError(f"The teacher of --workdir={run.folder} wrote nothing for any training example; train it longer.")
    empty = sum(not reasons for reasons in found)
    told = {"teacher": facts["teacher"], "from": dataset.fingerprint, "decode": facts["decode"], "empty": empty}
    with staging(target, overwrite) as folder:
        manifest = write_dataset(dataset, found, folder, "distilled", told)
    shutil.rmtree(work)
    return {"dataset": output, "counts": manifest["counts"], "empty": empty, "teacher": facts["teacher"]}


def write_reasons(
    run: Run, dataset: Dataset, decode: DecodeConfig, written: pathlib.Path, facts: dict, progress: Callable[[int, int], None],
    examples: Iterable[dict] | None = None,
) -> None:  # fmt: skip
    """A run's reasons for the training split (or `examples`), one line each; `facts` tell them from others, and the same call goes on where one
    stopped."""
    inputs = written.with_name("inputs.jsonl")
    with inputs.open("w", encoding="utf-8") as file:
        for example in examples or dataset.examples("train"):
            file.write(records.encode({k: v for k, v in example.items() if k != "reason"}) + "\n")
    writer = run.writer(decode)
    generate_file(
        str(inputs), str(written), writer.write, settings=facts, controls=dataset.controls, override={},
        chunk=max(CHUNK, 4 * writer.writer.rows), overwrite=False, progress=progress,
    )  # fmt: skip


def read_reasons(written: pathlib.Path) -> list[list[str]]:
    """What `write_reasons` wrote: all reasons of each example."""
    with written.open(encoding="utf-8") as lines:
        return [row.get("reasons", [row["reason"]]) for row in map(json.loads, lines)]


def write_dataset(
    dataset: Dataset, reasons: list[list[str]], folder: pathlib.Path, what: str, told: dict, examples: Iterable[dict] | None = None
) -> dict:
    """All files of the dataset but its training shards, those anew with the `reasons` of each example (or of `examples`), and the manifest, which
    is returned; it has `told` under the name `what`."""
    mine = {"dataset.json", *(shard["file"] for shard in dataset.manifest["splits"]["train"])}
    shutil.copytree(dataset.folder, folder, dirs_exist_ok=True, ignore=lambda place, names: mine & set(names))
    writer = ShardWriter(folder, "train", dataset.manifest["config"]["shard_examples"])
    try:
        for example, those in zip(examples or dataset.examples("train"), reasons, strict=True):
            for reason in those:
                writer.write(records.encode(example | {"reason": reason}).encode())
    finally:
        writer.abandon()
    m, shards = dataset.manifest, writer.close()
    counts, splits = m["counts"] | {"train": sum(map(len, reasons))}, m["splits"] | {"train": shards}
    manifest = m | {"name": f"{m['name']}-{what}", "counts": counts, "splits": splits, what: told}
    write_json(folder / "dataset.json", manifest)
    return manifest
