"""Qwen2ForCausalLM: Llama with biases on queries, keys and values.

For folders of this type the AutoTokenizer of transformers 5 replaces the way tokenizer.json splits text by Qwen's own, whatever the
folder says, so only PreTrainedTokenizerFast gives every tokenizer's own ids.
"""

from __future__ import annotations

import dataclasses

from rgjax.hf import llama

FAMILY = dataclasses.replace(
    llama.FAMILY, name="qwen2", model_class="Qwen2ForCausalLM", shape=llama.SHAPE | {"qkv_bias": True},
    fixed={"hidden_act": "silu", "use_sliding_window": False}, tokenizer_class="PreTrainedTokenizerFast", bottlenecks={},
)  # fmt: skip
