"""MistralForCausalLM: Llama with a window, which must not bite."""

from __future__ import annotations

import dataclasses

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.hf import llama


def more(c: ModelConfig) -> dict:
    return llama.rope(c) | {"sliding_window": None}


def options(body: dict) -> dict:
    """As Llama's; raises UserError when the window, 4096 if not named, is shorter than the longest sequence."""
    window, longest = body.get("sliding_window", 4096), body["max_position_embeddings"]
    if window is not None and window < longest:
        raise UserError(
            f"config.json says sliding_window={window} below max_position_embeddings={longest}, and rgjax attends to all; "
            f"use another model, or lower the latter to {window}."
        )
    return llama.options({**body, "layer_types": None})


FAMILY = dataclasses.replace(
    llama.FAMILY, name="mistral", model_class="MistralForCausalLM", fixed={"hidden_act": "silu"}, more=more, options=options
)
