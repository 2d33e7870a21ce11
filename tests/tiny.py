"""Small configurations, parameters and batches for tests."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.config import ModelConfig
from rgjax.models.build import ModelFactory
from rgjax.train import workdir

SMALL = {"layers": 2, "width": 20, "heads": 4, "head_dim": 6, "mlp_width": 28, "dropout": 0.0, "max_positions": 128}
FAMILIES = {
    "llama": {"kv_heads": 2, "tied": False},
    "qwen2": {"kv_heads": 2, "qkv_bias": True, "tied": False},
    "qwen3": {"kv_heads": 1, "qk_norm": True},
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu_new", "bias": True, "norm_eps": 1e-5},
    "t5": {"architecture": "seq2seq", "positions": "relative", "activation": "geglu", "encoder_layers": 3, "tied": False},
    "t5_tied_relu": {"architecture": "seq2seq", "positions": "relative", "activation": "relu"},
    "bart": {
        "architecture": "seq2seq", "positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "post_norm": True,
        "embedding_norm": True, "position_offset": 2, "norm_eps": 1e-5, "head_dim": 5, "encoder_layers": 3,
    },
    "bert": {
        "architecture": "encoder", "positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True, "post_norm": True,
        "embedding_norm": True, "token_types": 2, "norm_eps": 1e-12, "head_dim": 5,
    },
    "seq2seq_rotary": {"architecture": "seq2seq", "kv_heads": 2},
}  # fmt: skip

# What the Hugging Face tests export: name -> (family above, changes to it).
EXPORTED = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tied": True, "kv_heads": 4, "rope_theta": 500.0}),
    "qwen3": ("qwen3", {}),
    "qwen3_untied": ("qwen3", {"tied": False, "kv_heads": 2, "norm_eps": 1e-3}),
    "qwen2": ("qwen2", {}),
    "qwen2_tied": ("qwen2", {"tied": True, "kv_heads": 4, "rope_theta": 500.0}),
    "mistral": ("llama", {"norm_eps": 1e-5}),
    "gpt2": ("gpt2", {"head_dim": 5}),
    "gpt2_untied": ("gpt2", {"head_dim": 5, "tied": False, "activation": "gelu", "norm_eps": 1e-3}),
    "bart": ("bart", {}),
    "bert": ("bert", {}),
    "t5_geglu": ("t5", {}),
    "t5_geglu_tied": ("t5", {"tied": True}),
    "t5_relu": ("t5_tied_relu", {}),
    "t5_relu_untied": ("t5_tied_relu", {"tied": False, "relative_buckets": 16, "relative_distance": 20}),
}


def config(family: str = "llama", **changes) -> ModelConfig:
    """A small model of a family, no two of its widths alike."""
    return ModelConfig(**{**SMALL, **FAMILIES[family], **changes})


@functools.cache
def factory(family: str = "llama", vocab_size: int = 50, **changes) -> ModelFactory:
    return ModelFactory(config(family, **changes), vocab_size)


@functools.cache
def params(made: ModelFactory, seed: int = 0, noise: float = 0.3) -> dict:
    """Random parameters, with norms and biases off their initial values and sharp enough outputs to rank tokens."""
    fresh = made.fresh(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, noise, a.shape), a.dtype), fresh)


def row(segments: list[list[int]], length: int, prefix: str = "") -> dict[str, np.ndarray]:
    """One packed row [1, length]: tokens, segment_ids and positions of the segments, then padding."""
    out = {f"{prefix}{name}": np.zeros((1, length), np.int32) for name in ("tokens", "segment_ids", "positions")}
    at = 0
    for i, tokens in enumerate(segments):
        out[f"{prefix}tokens"][0, at : at + len(tokens)] = tokens
        out[f"{prefix}segment_ids"][0, at : at + len(tokens)] = i + 1
        out[f"{prefix}positions"][0, at : at + len(tokens)] = np.arange(len(tokens))
        at += len(tokens)
    return out


def training_batch(made: ModelFactory, rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random packed rows with ragged numbers of target tokens."""
    rng, stacked = np.random.default_rng(seed), []
    for r in range(rows):
        sizes = [int(rng.integers(2, length // 2)) for _ in range(2)]
        one = row([list(rng.integers(1, made.vocab_size, n)) for n in sizes], length)
        if made.config.architecture == "seq2seq":
            one |= row([list(rng.integers(1, made.vocab_size, n)) for n in rng.integers(2, length // 2, 2)], length, "encoder_")
        one["targets"] = rng.integers(1, made.vocab_size, (1, length)).astype(np.int32)
        shown = (one["segment_ids"] > 0) & (rng.random((1, length)) < (r + 1) / rows)
        one["weights"] = shown.astype(np.int32)
        stacked.append(one)
    return {k: np.concatenate([s[k] for s in stacked]) for k in stacked[0]}


def sections(dataset_folder, folder, inputs: dict, **changes) -> dict:
    """The sections of a small run on a dataset, one example a row, told and saved often; `changes` are values by section."""
    made = {name: cls() for name, cls in workdir.SECTIONS.items()}
    rows = {"length": 112, "target_length": 32, "packing": False, "buckets": "1"}
    often = {"eval_every": 3, "save_every": 3, "log_every": 1, "samples": 1, "eval_batches": 1}
    model = {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0, "max_positions": 128}
    usual = {"input": {"dataset": str(dataset_folder), **rows, **inputs}, "model": model}
    usual |= {"train": {"workdir": str(folder), "steps": 6, "compilation_cache": "", **often}}
    for values in (usual, changes):
        made |= {name: dataclasses.replace(made[name], **given) for name, given in values.items()}
    return made


@functools.cache
def forward(made: ModelFactory):
    """The model's compiled forward pass, (params, batch) -> hidden; compiled once per shape."""
    return jax.jit(lambda p, b: made.model(p)(b))


def hidden(made: ModelFactory, tree: dict, batch: dict) -> np.ndarray:
    return np.asarray(forward(made)(tree, batch))


def logged_losses(workdir) -> dict[int, float]:
    """Training loss by step, as metrics.jsonl tells it; each step must stand there once."""
    lines = [json.loads(line) for line in pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()]
    steps = [v["step"] for v in lines if "loss" in v]
    assert len(steps) == len(set(steps)), steps
    return {v["step"]: v["loss"] for v in lines if "loss" in v}
