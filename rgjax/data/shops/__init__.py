"""Readers of shops: one module per layout of raw interactions, each giving `rgjax.data.interactions.Interactions`."""

from __future__ import annotations

import importlib
import pathlib

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError

LAYOUTS = ("ml1m",)


def read(layout: str, source: str) -> Interactions:
    """The interactions of a folder (or file) in a layout; raises UserError when files are missing or malformed."""
    if layout not in LAYOUTS:
        raise UserError(f"--layout={layout} holds no interactions; use one of {', '.join(LAYOUTS)}.")
    if not pathlib.Path(source).exists():
        raise UserError(f"--source={source} does not exist; give the folder with the raw data.")
    return importlib.import_module(f"rgjax.data.shops.{layout}").read(pathlib.Path(source))
