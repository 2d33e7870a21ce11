"""Model FLOPs and their utilisation (MFU).

    FLOPs of a step = passes x [ sum over matrices of the stacks (1 + g + w) x 2 x parameters x tokens they are applied to
                                 + (1 + 2 g) x 4 x H x A x sum of attended keys x layers
                                 + (1 + g + w) x 2 x D x V x target tokens ]

Forward once. Backward: g = 1 for the gradient of what a matrix reads, needed where anything is trained in its stack or below it, else
0; w = 1 for the gradient of the matrix itself, needed where it is trained, else 0. So training everything costs three times the
forward pass, and an adapter on a frozen model twice, its own small matrices apart. Attention multiplies two activations: its backward
pass is twice the forward one whatever is trained. R-Drop makes two passes, all else one; recomputation does not count, nor what
is computed once a step (penalties, DoRA's norms). Attention counts half the square of each packed segment where causal, through the
batch's own mean length, and a prefix by its tokens. Padding is not work: `tokens` are real tokens. Nor is what nothing reads: all but the
keys and values of a decoder's last layer counts at target tokens only, which are taken to end their examples.
MFU = FLOPs / (seconds x peak).
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rgjax import trees
from rgjax.config import ModelConfig
from rgjax.train.state import everything

# Dense bf16 peaks of a device, FLOP/s, from the makers' data sheets (without sparsity).
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "TPU v5 lite": 197e12, "TPU v6 lite": 918e12}


_MATRIX = re.compile(r"\.(w[qkvou]|w_in|w_gate|w_out|a|b|down|up)$")  # of a block, and what adapters add to it
_READ_BY_ALL = re.compile(r"\.attention\.w[kv](\.|$)")  # what a decoder's last layer computes at every position
_OF_SOURCE = re.compile(r"\.cross\.w[kv](\.|$)")  # applied to the encoder's output


def step_flops(
    config: ModelConfig, params: dict, vocab_size: int, counts: dict[str, float], trained: Callable[[str], bool] = everything, passes: int = 1
) -> float:
    """FLOPs of a training step on `counts`: tokens, encoder_tokens, target_tokens and examples of a batch.

    `params` are all parameters (or their shapes), an adapter's under "adapter"; `trained` says which are, by path.
    """
    leaves, reached = dict(trees.flat(params)), _reached(params, trained)
    width = config.heads * (config.head_dim or config.width // config.heads)
    mean = counts["tokens"] / max(counts["examples"], 1)
    mean_encoder = counts["encoder_tokens"] / max(counts["examples"], 1)
    work = 0.0
    for path, leaf in leaves.items():
        stack, blocks, _ = path.removeprefix("adapter.").partition(".blocks.")
        if blocks and _MATRIX.search(path) and leaf.ndim >= 3:  # stacked matrices have 3 or 4 axes
            read = "encoder" if stack == "encoder" or _OF_SOURCE.search(path) else "decoder"
            seen = counts["encoder_tokens" if read == "encoder" else "tokens"]
            if stack == "decoder" and read == "decoder" and not _READ_BY_ALL.search(path):
                seen += (counts["target_tokens"] - seen) / leaf.shape[0]
            work += 2 * leaf.size * seen * (1 + reached[read] + trained(path))
    prefix = leaves.get("adapter.decoder.blocks.attention.k")  # [L, N, K, A]
    beside, targets = mean_encoder + (0 if prefix is None else prefix.shape[1]), min(counts["target_tokens"], counts["tokens"])
    last = targets * (mean - targets / max(counts["examples"], 1) / 2 + beside)
    attended = {"decoder": (config.layers - 1) * counts["tokens"] * (mean / 2 + beside) + last}
    attended["encoder"] = (config.encoder_layers or config.layers) * counts["encoder_tokens"] * mean_encoder
    work += sum(4 * width * pairs * (1 + 2 * reached[stack]) for stack, pairs in attended.items())
    head = "embedding.tokens" if config.tied else "embedding.output"
    return passes * (work + 2 * config.width * vocab_size * counts["target_tokens"] * (1 + reached["decoder"] + trained(head)))


def _reached(params: dict, trained: Callable[[str], bool]) -> dict[str, bool]:
    """Whether gradients flow through the encoder, and through the decoder, which reads it: whether something in it or below is trained."""
    chosen = [path.removeprefix("adapter.") for path, _ in trees.flat(params) if trained(path)]
    encoder = any(path.startswith(("encoder.", "embedding.")) and path != "embedding.output" for path in chosen)
    return {"encoder": encoder, "decoder": encoder or any(path.startswith(("decoder.", "entrance.")) for path in chosen)}


@functools.cache
def peak_flops(devices: int) -> tuple[float, str]:
    """(FLOP/s of so many devices together, where the figure is from): a data sheet, or a measured float32 matrix product."""
    kind = jax.devices()[0].device_kind
    for name, peak in PEAKS.items():
        if re.search(rf"\b{name}\b", kind, re.IGNORECASE):
            return peak * devices, f"data sheet, {name} dense bf16"
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
