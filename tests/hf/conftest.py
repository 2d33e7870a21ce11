"""Exported folders of tiny random models."""

import pytest
import tiny

from rgjax.hf import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory, tokenizer):
    """exported(name) -> (factory, parameters, folder); each written once."""
    made = {}

    def get(name):
        if name not in made:
            family, changes = tiny.EXPORTED[name]
            factory = tiny.factory(family, tokenizer.vocab_size, **changes)
            folder = tmp_path_factory.mktemp("hf") / name
            # T5 leaves scores unscaled: with larger noise its softmax is too steep for float32 to agree with itself.
            params = tiny.params(factory, noise=0.1 if "t5" in name else 0.3)
            chosen = "mistral" if name == "mistral" else "auto"
            export.write(folder, params, factory.config, tokenizer, family=chosen, card="# Card\n", max_new_tokens=17)
            made[name] = (factory, params, folder)
        return made[name]

    return get
