"""A trained run as a Hugging Face folder that plain `transformers` loads: no custom code, safetensors only."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rgjax.config import ModelConfig
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf import adapter as adapter_lib
from rgjax.hf import compressed
from rgjax.hf.families import choose
from rgjax.hf.sentence import Sentence
from rgjax.hf.table import METADATA, Family, tensors
from rgjax.models.adapted import AdaptedFactory

SHARD_BYTES = 4 * 2**30


def write(
    output: str | pathlib.Path, params: dict, config: ModelConfig, tokenizer: Tokenizer, *, family: str = "auto",
    dtype: str = "float32", max_new_tokens: int = 128, card: str = "", overwrite: bool = False, shard_bytes: int = SHARD_BYTES,
    token_ids: dict | None = None, sentence: Sentence | None = None, notes: dict[str, dict] | None = None,
) -> Family:  # fmt: skip
    """Writes config.json, generation_config.json, weights, tokenizer and README.md into a new folder, whole or not at all.

    `params` is the nested dict of float32 arrays; `dtype` float32, bfloat16 or int8 (`hf.compressed`); `card` the text of
    README.md; `token_ids` (`eos_token_id` and its like) go before the tokenizer's; `sentence` makes it a folder of
    sentence-transformers too; `notes` are further JSON files by name. Raises UserError when the model fits no family, or int8 not
    its family, or the folder exists.
    """
    chosen = choose(config, family)
    with _staging(pathlib.Path(output).absolute(), overwrite) as fresh:
        _write_files(fresh, params, config, tokenizer, chosen, dtype, max_new_tokens, card, shard_bytes, token_ids or {})
        if sentence is not None:
            sentence.write(fresh, config.width)
        _notes(fresh, notes)
    return chosen


def write_adapter(
    output: str | pathlib.Path, factory: AdaptedFactory, adapter: dict, tokenizer: Tokenizer, *, family: Family, base: str, card: str = "",
    overwrite: bool = False, notes: dict[str, dict] | None = None,
) -> None:  # fmt: skip
    """Writes an adapter alone, in PEFT's format or (bottlenecks) AdapterHub's, with the tokenizer and README.md, whole or not at all.

    Arguments and errors as `hf.adapter.write`'s; `notes` are further JSON files by name; also raises UserError when the folder exists.
    """
    with _staging(pathlib.Path(output).absolute(), overwrite) as fresh:
        adapter_lib.write(fresh, factory, family, adapter, base)
        tokenizer.save(fresh)
        (fresh / "README.md").write_text(card, encoding="utf-8")
        _notes(fresh, notes)


@contextlib.contextmanager
def _staging(output: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
    """A folder beside `output` that takes its place when the block succeeds and vanishes when it fails."""
    _check_replaceable(output, overwrite)
    fresh = output.with_name(f".{output.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        old = output.with_name(f".{output.name}.old")
        if output.exists():
            os.replace(output, old)
        os.replace(fresh, output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_replaceable(output: pathlib.Path, overwrite: bool) -> None:
    """Only an earlier export may be replaced: --overwrite must never cost anyone a run or a home folder."""
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"--output={output} exists; give another folder, or --overwrite.")
    if not _written_here(output) or (output / "checkpoints").exists():
        raise UserError(f"--output={output} is not a model that rgjax exported, so --overwrite leaves it alone; give another folder.")


def _written_here(folder: pathlib.Path) -> bool:
    """Whether the folder's weights say that `write` wrote them."""
    file = min([*folder.glob("model*.safetensors"), *folder.glob("adapter*.safetensors")], default=None)
    try:
        with safe_open(file, "numpy") as opened:
            return opened.metadata() == METADATA
    except (SafetensorError, OSError, TypeError):
        return False


def _write_files(folder, params, config, tokenizer, family, dtype, max_new_tokens, card, shard_bytes, token_ids) -> None:
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    ids |= {"decoder_start_token_id": tokenizer.pad_id} if family.seq2seq else {}
    ids, rows = ids | token_ids, config.embeddings or tokenizer.vocab_size
    chosen = compressed.names(family, config) if dtype == "int8" else set()
    kind = "float32" if chosen else dtype  # of what is not compressed
    body = family.body(config, rows) | ids | {"dtype": kind, "torch_dtype": kind}
    body |= {"quantization_config": compressed.CONFIG} if chosen else {}
    _json(folder / "config.json", body)
    _json(folder / "generation_config.json", ids | {"max_new_tokens": max_new_tokens, "do_sample": False})
    tokenizer.save(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    zeros = {name: np.zeros(shape, np.float32) for name, shape in family.buffers(rows).items()}
    arrays = itertools.chain(tensors(params, family.rules(config)), zeros.items())
    if chosen:
        arrays = compressed.compressed(arrays, chosen, max(config.layers, config.encoder_layers))
    _weights(folder, arrays, kind, shard_bytes)


def _weights(folder: pathlib.Path, arrays: Iterable[tuple[str, np.ndarray]], dtype: str, shard_bytes: int) -> None:
    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, array in arrays:
        array = array if array.dtype.kind == "i" else array.astype(kind)
        if shards[-1] and sum(a.nbytes for a in shards[-1].values()) + array.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = array
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata=METADATA)
        return
    places = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata=METADATA)
        places |= dict.fromkeys(shard, file)
    total = sum(a.nbytes for shard in shards for a in shard.values())
    _json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _notes(folder: pathlib.Path, notes: dict[str, dict] | None) -> None:
    for name, value in (notes or {}).items():
        _json(folder / name, value)


def _json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
