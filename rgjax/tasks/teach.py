"""A teacher's probabilities at the target tokens of a dataset, written for students (the folder: rgjax/data/teacher.py)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.data.dataset import Dataset
from rgjax.data.shards import ShardWriter
from rgjax.data.staging import staging, write_json
from rgjax.data.teacher import MANIFEST, Record, id_type
from rgjax.errors import UserError
from rgjax.parallel import sharding
from rgjax.tasks.run import Earlier, Run

TOKENS = 256  # scored at once: bounds the float32 logits that are held
SHARD_EXAMPLES = 50_000


def teacher_facts(run: Run) -> dict:
    """Who the teacher is: its folder, and a fingerprint that changes with its weights."""
    return {"workdir": str(run.folder), "teacher": Earlier(run).fingerprint}


def parse_temperatures(text: str) -> list[float]:
    """'1,2,4' as numbers; raises UserError when one is not above 0."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < t < float("inf") for t in found) or len(set(found)) < len(found):
        raise UserError(f"--temperatures={text} is not understood; write different numbers above 0, as 1,2,4.")
    return found


def teach(run: Run, dataset: Dataset, top: int, temperatures: str, output: str, overwrite: bool, progress: Callable[[int, int], None]) -> dict:
    """Writes `output`, whole or not at all; returns the summary. Raises UserError when it exists or `top` takes the whole vocabulary."""
    held, vocabulary = parse_temperatures(temperatures), run.task.tokenizer.vocab_size
    if top >= vocabulary:
        raise UserError(f"--logits={top} takes all of the {vocabulary} tokens; take fewer, as 16.")
    total, kind, count, tokens = dataset.count("train"), id_type(vocabulary), 0, 0
    with staging(pathlib.Path(output), overwrite, MANIFEST) as folder:
        writer = ShardWriter(folder, "train", SHARD_EXAMPLES)
        try:
            for record in read(run, dataset, top, held):
                writer.write(record.encode(kind))
                count, tokens = count + 1, tokens + len(record.targets)
                if count % 256 == 0 or count == total:
                    progress(count, total)
        finally:
            writer.abandon()
        manifest = {
            "format": 1, **teacher_facts(run), "dataset_fingerprint": dataset.fingerprint, "tokenizer_sha256": run.task.tokenizer.checksum(),
            "rendering": run.task.rendering, "top": top, "temperatures": held, "id_type": kind, "examples": count, "target_tokens": tokens,
            "shards": writer.close(),
        }  # fmt: skip
        write_json(folder / MANIFEST, manifest)
    size = sum(shard["bytes"] for shard in manifest["shards"])
    return {"output": output, "examples": count, "target_tokens": tokens, "top": top, "bytes": size, "teacher": manifest["teacher"]}


def read(run: Run, dataset: Dataset, top: int, temperatures: list[float]) -> Iterator[Record]:
    """The record of every training example, in order: what the model without dropout gives, whatever the order of its batches."""
    task, shape = run.task, {"k": top, "vocabulary": run.task.tokenizer.vocab_size, "temperatures": tuple(temperatures)}
    forward = jax.jit(lambda params, batch: task.factory.model(params)(batch))
    score = jax.jit(partial(_score, **shape))
    head = jax.jit(lambda params: task.factory.model(params).head())(run.params)
    for batch in task.evaluation_data(dataset, "train"):
        hidden = forward(run.params, sharding.put(batch, run.mesh))
        rows, columns = np.nonzero(batch["weights"] > 0)  # row after row: examples stay in order
        found = _scored(score, head, hidden, rows, columns)
        for r, one in enumerate(batch["segment_ids"]):
            for segment in range(1, one.max() + 1):
                mine = (rows == r) & (one[columns] == segment)
                ids, logits = (x[mine] for x in found)
                yield Record(batch["targets"][r, columns[mine]], ids, logits)


def _scored(score, head, hidden, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids [N, K], logits [N, K + S]) of the positions, some at a time."""
    pad = (0, -len(rows) % TOKENS)
    places = zip(*(np.split(np.pad(x, pad), (len(x) + pad[1]) // TOKENS or 1) for x in (rows, columns)), strict=True)
    parts = [jax.device_get(score(head, hidden, *place)) for place in places]
    return tuple(np.concatenate([part[i] for part in parts])[: len(rows)] for i in (0, 1))


def _score(head, hidden_BTD, rows_N, columns_N, k, vocabulary, temperatures):
    table_VD, shrink = head
    x_ND = hidden_BTD[rows_N, columns_N] * shrink
    logits_NV = jnp.einsum("nd,vd->nv", x_ND, table_VD.astype(x_ND.dtype), preferred_element_type=jnp.float32)[:, :vocabulary]
    logits_NV = logits_NV - jnp.max(logits_NV, axis=-1, keepdims=True)
    best_NK, ids_NK = jax.lax.top_k(logits_NV, k)
    others = logits_NV.at[jnp.arange(len(rows_N))[:, None], ids_NK].set(-jnp.inf)
    rest = [jax.nn.logsumexp(others / t, axis=-1, keepdims=True) for t in temperatures]
    return ids_NK, jnp.concatenate([best_NK, *rest], axis=-1)
