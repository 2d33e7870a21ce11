"""Exported folders of tiny random models."""

import pytest
import tiny

from rgjax.hf import export

# name -> (family that holds it, changes to tiny.config)
MODELS = {
    "llama": ("llama", {}),
    "llama_tied": ("llama", {"tied": True, "kv_heads": 4, "rope_theta": 500.0}),
    "qwen3": ("qwen3", {}),
    "qwen3_untied": ("qwen3", {"tied": False, "kv_heads": 2, "norm_eps": 1e-3}),
    "t5_geglu": ("t5", {}),
    "t5_geglu_tied": ("t5", {"tied": True}),
    "t5_relu": ("t5_tied_relu", {}),
    "t5_relu_untied": ("t5_tied_relu", {"tied": False, "relative_buckets": 16, "relative_distance": 20}),
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory, tokenizer):
    """exported(name) -> (factory, parameters, folder); each written once."""
    made = {}

    def get(name):
        if name not in made:
            family, changes = MODELS[name]
            factory = tiny.factory(family, tokenizer.vocab_size, **changes)
            folder = tmp_path_factory.mktemp("hf") / name
            # T5 leaves scores unscaled: with larger noise its softmax is too steep for float32 to agree with itself.
            params = tiny.params(factory, noise=0.1 if "t5" in name else 0.3)
            export.write(folder, params, factory.config, tokenizer, card="# Card\n", max_new_tokens=17)
            made[name] = (factory, params, folder)
        return made[name]

    return get
