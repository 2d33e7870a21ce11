"""The Hugging Face architectures we read and write, and which of them holds a model."""

from __future__ import annotations

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.hf import bart, bert, gpt2, llama, mistral, qwen2, qwen3, t5
from rgjax.hf.table import Family

FAMILIES: dict[str, Family] = {m.FAMILY.name: m.FAMILY for m in (llama, qwen2, qwen3, mistral, gpt2, t5, bart, bert)}


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
