"""Texts as vectors, by the BERT encoder of a Hugging Face folder; and a table of texts as a Parquet file of vectors."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers.normalizers import Lowercase

from rgjax.config import ModelConfig
from rgjax.data import covisit
from rgjax.data.dataset import Dataset
from rgjax.data.readers.columns import read_table
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf.load import Pretrained
from rgjax.hf.sentence import Sentence
from rgjax.models.build import ModelFactory
from rgjax.models.encoder import sentence_vectors
from rgjax.parallel import mesh as mesh_lib
from rgjax.train import workdir

STEP = 32  # rows are padded to a multiple of so many tokens: one program for each
CHUNK = 4096  # texts sorted by length together, so that rows of a batch are of a length; one row group of the file
SCHEMA = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32()))])


@dataclasses.dataclass
class Embedder:
    """`embed` gives each text its vector."""

    tokenizer: Tokenizer
    factory: ModelFactory
    params: dict
    sentence: Sentence

    @classmethod
    def open(cls, folder: str, pooling: str = "auto") -> Embedder:
        """Reads a folder of a BERT encoder; `pooling` 'auto' is what its sentence-transformers files say.

        Raises UserError when the folder is unusable, no encoder, or says nothing of pooling where 'auto' is asked for.
        """
        if workdir.is_run(folder):
            raise UserError(f"{folder} is a run, which makes no vectors of texts; give the folder of an encoder alone (bert).")
        source, tokenizer = Pretrained.open(folder), Tokenizer.load(folder)
        if not source.family.encoder:
            raise UserError(f"{folder} is a {source.family.name}, which makes no vectors; give the folder of an encoder alone (bert).")
        positions = source.options["max_positions"]
        said = Sentence.read(source.folder.path, positions)
        if pooling == "auto" and said is None:
            raise UserError(f"{folder} has no modules.json, which says how to pool; give --pooling=mean or --pooling=cls.")
        sentence = said if said and pooling in ("auto", said.pooling) else Sentence.fresh(source.folder.path, pooling, positions)
        config = source.configure(ModelConfig(), set(), tokenizer)
        factory = ModelFactory(config, config.embeddings)
        return cls(tokenizer, factory, source.params(factory, mesh_lib.make("data:1")), sentence)

    @functools.cached_property
    def _forward(self):
        def forward(params, batch):
            hidden = self.factory.model(params)(batch)
            return sentence_vectors(hidden, batch["segment_ids"] > 0, self.sentence.pooling, self.sentence.normalize)

        return jax.jit(forward)

    def embed(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Float32 [N, D], in the order of `texts`; each is cut to the most tokens the folder admits."""
        if self.sentence.lower:
            texts = [Lowercase().normalize_str(text) for text in texts]
        ids = self.tokenizer.encode_framed(texts, self.sentence.longest)
        out = np.zeros((len(ids), self.factory.config.width), np.float32)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for begin in range(0, len(order), batch):
            chosen = order[begin : begin + batch]
            made = self._forward(self.params, self._rows([ids[i] for i in chosen], min(batch, len(ids))))
            out[chosen] = np.asarray(made)[: len(chosen)]
        return out

    def _rows(self, ids: list[list[int]], rows: int) -> dict[str, np.ndarray]:
        """One text a row, padded on the right to a multiple of `STEP` tokens and with empty rows to `rows`."""
        length = min(-(-max(map(len, ids)) // STEP) * STEP or STEP, self.factory.config.max_positions)
        tokens = np.full((rows, length), self.tokenizer.pad_id, np.int32)
        segments = np.zeros((rows, length), np.int32)
        for row, one in enumerate(ids):
            tokens[row, : len(one)], segments[row, : len(one)] = one, 1
        return {"tokens": tokens, "segment_ids": segments, "positions": np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)}


def embed_file(embedder: Embedder, input: str, output: str, batch: int, overwrite: bool, progress: Callable[[int, int], None]) -> dict:
    """A table with columns id and text -> Parquet (id string, vector list<float32>), whole or not at all; returns counts.

    Raises UserError for a file that can't be used, a line without text and an id that comes twice.
    """
    source, target = pathlib.Path(input), pathlib.Path(output)
    if not source.is_file() or source.suffix not in (".csv", ".jsonl", ".parquet"):
        raise UserError(f"--input={input} is no .jsonl, .csv or .parquet file; give a table with columns id and text.")
    _check_target(target, overwrite)
    total = sum(1 for _ in _rows(source))  # every line is checked before the first is computed
    if not total:
        raise UserError(f"--input={input} is empty; give a table with columns id and text.")
    partial, rows, done = target.with_name(target.name + ".partial"), _rows(source), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(partial, SCHEMA) as writer:
            while chunk := list(itertools.islice(rows, CHUNK)):
                vectors = embedder.embed([text for _, text in chunk], batch)
                writer.write_table(pa.table([[i for i, _ in chunk], _lists(vectors)], schema=SCHEMA))
                done += len(chunk)
                progress(done, total)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return {"output": output, "vectors": total, "width": embedder.factory.config.width, "pooling": embedder.sentence.pooling}


def embed_items(folder: str, width: int, output: str, overwrite: bool) -> dict:
    """Vectors of the items of a dataset's training histories -> the same Parquet file, whole or not at all; returns counts."""
    target = pathlib.Path(output)
    _check_target(target, overwrite)
    names, vectors = covisit.item_vectors(Dataset.open(folder).examples("train"), width)
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        pq.write_table(pa.table([names, _lists(vectors)], schema=SCHEMA), partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return {"output": output, "vectors": len(names), "width": width}


def _check_target(target: pathlib.Path, overwrite: bool) -> None:
    if target.is_dir() or (target.exists() and not overwrite):
        raise UserError(f"--output={target} exists; give another file, or --overwrite.")


def _rows(path: pathlib.Path):
    """(id, text) of each row of the table."""
    seen = set()
    for number, row in read_table(path, ("id", "text")):
        name, text = row.get("id"), row.get("text")
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "" or not isinstance(text, str):
            raise UserError(f"{path}, row {number}: id must be a string or whole number, and text a string; mend the row.")
        if (name := str(name)) in seen:
            raise UserError(f"{path}, row {number}: the id {name!r} comes a second time; give every text its own.")
        seen.add(name)
        yield name, text


def _lists(vectors: np.ndarray) -> pa.Array:
    ends = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(vectors.reshape(-1)))
