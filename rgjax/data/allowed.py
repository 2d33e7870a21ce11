"""Which items may be recommended at all."""

from __future__ import annotations

import pathlib

import numpy as np

from rgjax.config import RecommendConfig
from rgjax.data.interactions import Catalogue, attribute_values
from rgjax.errors import UserError


def allowed(config: RecommendConfig, items: Catalogue) -> np.ndarray:
    """bool [I] by --unavailable and --only; raises UserError when one names what is not there."""
    found = np.ones(len(items), bool)
    if config.unavailable:
        if not pathlib.Path(config.unavailable).is_file():
            raise UserError(f"--unavailable={config.unavailable} is no file; give one of item ids, one per line.")
        for number, line in enumerate(pathlib.Path(config.unavailable).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if name := line.strip():
                if name not in items.index:
                    raise UserError(f"{config.unavailable}, line {number}: the catalogue has no item '{name}'; leave the line out.")
                found[items.index[name]] = False
    if config.only:
        name, mark, value = config.only.partition("=")
        has = np.array([value in attribute_values(attributes, name) for attributes in items.attributes])
        if not mark or not has.any():
            known = ", ".join(sorted({key for attributes in items.attributes for key in attributes})) or "none"
            raise UserError(f"--only={config.only} fits no item; write name=value with an attribute of the catalogue ({known}).")
        found &= has
    return found
