"""An adapter's folder, in whichever of the two formats: PEFT's, or AdapterHub's for bottlenecks."""

from __future__ import annotations

import pathlib

from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.hf import adapterhub, peft
from rgjax.hf.folder import read_json
from rgjax.hf.table import Family
from rgjax.models.adapted import AdaptedFactory
from rgjax.models.build import ModelFactory


def write(folder: pathlib.Path, factory: AdaptedFactory, family: Family, adapter: dict, base: str) -> None:
    """Writes configuration and weights into an existing folder; raises UserError when neither format has a place for the adapter.

    `adapter` is a nested dict of host arrays, `base` the name or folder of the model that it belongs to.
    """
    if factory.adapter.adapter == "bottleneck":
        adapterhub.write(folder, factory, family, adapter, "reason")
    else:
        peft.write(folder, factory, family, adapter, base)


def read(folder: str | pathlib.Path, factory: ModelFactory, family: Family) -> tuple[AdapterConfig, dict]:
    """(our options, nested dict of float32 arrays) of an adapter for a model of `factory`.

    Raises UserError when the folder is unusable, of a kind that is not computed here, or made for another model.
    """
    if not pathlib.Path(folder).is_dir():
        raise UserError(f"{folder} is no folder; give one with adapter_config.json and its weights.")
    described = read_json(pathlib.Path(folder) / peft.CONFIG)
    return (peft if "peft_type" in described else adapterhub).read(folder, factory, family)
