"""Exported matrices in int8, in the format of compressed-tensors that transformers and vLLM read: weight-only, one scale per channel.

For 8-bit weights alone that package infers, and vLLM wants, 'pack-quantized': in place of NAME.weight [O, I] there are

    NAME.weight_packed  int32 [O, ceil(I / 4)]   four weights a word, the first lowest, each plus 128
    NAME.weight_scale   float32 [O, 1]
    NAME.weight_shape   int64 [2]                O and I
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.hf.table import Family
from rgjax.models.adapted import MATRIX
from rgjax.nn.quantized import quantize

_REFUSED = {
    "gpt2": "keeps its matrices in no torch Linear, which the format is for",
    "t5": "transformers can't load compressed (it sets up the float weights first)",
    "bert": "writes no text",
}
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "group_size": None, "dynamic": False}
CONFIG = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": _WEIGHTS, "input_activations": None, "output_activations": None}},
}  # fmt: skip


def names(family: Family, config: ModelConfig) -> set[str]:
    """Tensors to compress (`{i}` for the layer): the matrices of the blocks. Raises UserError for a family that the format can't hold."""
    if family.name in _REFUSED:
        raise UserError(f"--export_dtype=int8 does not hold a {family.name} model, which {_REFUSED[family.name]}; take float32 or bfloat16.")
    return {rule.theirs for rule in family.rules(config) if MATRIX.search(rule.ours)}


def compressed(arrays: Iterable[tuple[str, np.ndarray]], chosen: set[str], layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors with those `chosen` in int8 and the others as they are; `layers` is the most of any stack."""
    numbered = {name.format(i=i) for name in chosen for i in range(layers)}
    for name, array in arrays:
        if name not in numbered:
            yield name, array
            continue
        q, scale = quantize(array, (1,))
        words = np.pad((q.astype(np.int16) + 128).astype(np.uint8), ((0, 0), (0, -q.shape[1] % 4)))
        yield f"{name}_packed", words.view("<i4").astype(np.int32)
        yield f"{name}_scale", scale[:, None]
        yield f"{name}_shape", np.array(array.shape, np.int64)
