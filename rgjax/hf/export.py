"""A trained run as a Hugging Face folder that plain `transformers` loads: no custom code, safetensors only."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from rgjax.config import ModelConfig
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError
from rgjax.hf import llama, qwen3, t5
from rgjax.hf.table import Family, tensors

FAMILIES: dict[str, Family] = {f.name: f for f in (llama.FAMILY, qwen3.FAMILY, t5.FAMILY)}
SHARD_BYTES = 4 * 2**30


def choose(config: ModelConfig, name: str) -> Family:
    """The named family, or the first that fits with 'auto'; raises UserError saying why none does."""
    reasons = {f.name: f.refuses(config) for f in FAMILIES.values()}
    if name == "auto":
        name = next((n for n, why in reasons.items() if why is None), "")
        if not name:
            listed = "; ".join(f"{n}: {why}" for n, why in reasons.items())
            raise UserError(f"No Hugging Face architecture holds this model ({listed}); train with options of one of them.")
    if reasons[name]:
        raise UserError(f"--family={name} does not hold this model: {reasons[name]}; use --family=auto or train it so.")
    return FAMILIES[name]


def unexportable(config: ModelConfig) -> str | None:
    """Why no family holds this model, or None."""
    try:
        choose(config, "auto")
    except UserError as error:
        return str(error)
    return None


def write(
    output: str | pathlib.Path, params: dict, config: ModelConfig, tokenizer: Tokenizer, *, family: str = "auto",
    dtype: str = "float32", max_new_tokens: int = 128, card: str = "", overwrite: bool = False, shard_bytes: int = SHARD_BYTES,
) -> Family:  # fmt: skip
    """Writes config.json, generation_config.json, weights, tokenizer and README.md into a new folder, whole or not at all.

    `params` is the nested dict of float32 arrays; `card` the text of README.md. Raises UserError when the model fits no
    family or the folder exists.
    """
    output, chosen = pathlib.Path(output), choose(config, family)
    output = output.absolute()
    _check_replaceable(output, overwrite)
    fresh = output.with_name(f".{output.name}.writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _write_files(fresh, params, config, tokenizer, chosen, dtype, max_new_tokens, card, shard_bytes)
        old = output.with_name(f".{output.name}.old")
        if output.exists():
            os.replace(output, old)
        os.replace(fresh, output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return chosen


def _check_replaceable(output: pathlib.Path, overwrite: bool) -> None:
    """Only an earlier export may be replaced: --overwrite must never cost anyone a run or a home folder."""
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"--output={output} exists; give another folder, or --overwrite.")
    if not (output / "generation_config.json").is_file() or (output / "checkpoints").exists():
        raise UserError(f"--output={output} is not an exported model, so --overwrite leaves it alone; give another folder.")


def _write_files(folder, params, config, tokenizer, family, dtype, max_new_tokens, card, shard_bytes) -> None:
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    start = {"decoder_start_token_id": tokenizer.pad_id} if family.start_is_pad else {}
    body = family.config(config, tokenizer.vocab_size) | ids | start | {"dtype": dtype, "torch_dtype": dtype}
    _json(folder / "config.json", body)
    _json(folder / "generation_config.json", ids | start | {"max_new_tokens": max_new_tokens, "do_sample": False})
    tokenizer.save(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    _weights(folder, params, family.rules(config), dtype, shard_bytes)


def _weights(folder: pathlib.Path, params: dict, rules: list, dtype: str, shard_bytes: int) -> None:
    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, array in tensors(params, rules):
        array = array.astype(kind)
        if shards[-1] and sum(a.nbytes for a in shards[-1].values()) + array.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = array
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(a.nbytes for shard in shards for a in shard.values())
    _json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
