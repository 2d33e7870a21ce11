"""Model FLOPs and their utilisation (MFU).

    FLOPs of a step = 3 x [ 2 x (matrix parameters of the stacks) x tokens + 4 x H x A x sum of attended keys x layers
                            + 2 x D x V x target tokens ]

Forward once, backward twice; recomputation does not count. Attention counts half the square of each packed segment where
causal, through the batch's own mean length. Padding is not work: `tokens` are real tokens. MFU = FLOPs / (seconds x peak).
"""

from __future__ import annotations

import functools
import re
import time

import jax
import jax.numpy as jnp

from rgjax.config import ModelConfig

# Dense bf16 peaks of a device, FLOP/s, from the makers' data sheets (without sparsity).
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "TPU v5 lite": 197e12, "TPU v6 lite": 918e12}


def matrix_parameters(params: dict) -> tuple[int, int]:
    """Parameters in matrix products of (the decoder or only stack, the encoder)."""
    count = lambda tree: sum(a.size for a in jax.tree.leaves(tree) if a.ndim >= 3)  # stacked matrices have 3 or 4 axes
    return count(params["decoder"]["blocks"]), count(params.get("encoder", {}).get("blocks", {}))


def step_flops(config: ModelConfig, params: dict, vocab_size: int, counts: dict[str, float]) -> float:
    """FLOPs of a training step on `counts`: tokens, encoder_tokens, target_tokens and examples of a batch."""
    decoder, encoder = matrix_parameters(params)
    width = config.heads * (config.head_dim or config.width // config.heads)
    mean = counts["tokens"] / max(counts["examples"], 1)
    mean_encoder = counts["encoder_tokens"] / max(counts["examples"], 1)
    attended = config.layers * counts["tokens"] * (mean / 2 + mean_encoder)
    attended += (config.encoder_layers or config.layers) * counts["encoder_tokens"] * mean_encoder
    forward = 2 * decoder * counts["tokens"] + 2 * encoder * counts["encoder_tokens"]
    forward += 4 * width * attended + 2 * config.width * vocab_size * counts["target_tokens"]
    return 3 * forward


@functools.cache
def peak_flops() -> tuple[float, str]:
    """(FLOP/s of all devices together, where the figure is from): a data sheet, or a measured float32 matrix product."""
    kind = jax.devices()[0].device_kind
    for name, peak in PEAKS.items():
        if re.search(rf"\b{name}\b", kind, re.IGNORECASE):
            return peak * jax.device_count(), f"data sheet, {name} dense bf16"
    n = 1024
    x = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    best = min(_timed(product, x) for _ in range(5))
    # Fake CPU devices share the same cores, so the figure is that of the machine.
    return 2 * n**3 / best, f"measured {n}-cube float32 matrix product"


def _timed(f, x) -> float:
    start = time.perf_counter()
    f(x).block_until_ready()
    return time.perf_counter() - start
