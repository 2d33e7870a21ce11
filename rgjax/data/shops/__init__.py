"""Readers of shops: one module per layout of raw interactions, each giving `rgjax.data.shops.common.Found`."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib

from rgjax.data.cleaning import clean_catalogue
from rgjax.data.interactions import Interactions
from rgjax.data.shops.common import Found, Options, options
from rgjax.errors import UserError

_MODULES = {"ml1m": "ml1m", "online_retail": "online_retail", "bundle_intent": "bundle_intent", "shop": "tables"}
LAYOUTS = tuple(_MODULES)


def load(layout: str, source: str, told: Options | None = None) -> Found:
    """Interactions, bundles and what was dropped, of a folder (or file) in a layout.

    Raises UserError when files are missing or malformed; without `told` the clock says what lies in the future.
    """
    if layout not in LAYOUTS:
        raise UserError(f"--layout={layout} holds no interactions; use one of {', '.join(LAYOUTS)}.")
    if not pathlib.Path(source).exists():
        raise UserError(f"--source={source} does not exist; give the folder with the raw data.")
    found = importlib.import_module(f"rgjax.data.shops.{_MODULES[layout]}").load(pathlib.Path(source), told or options())
    data = found.interactions  # titles with "&quot;" or tags would reach the reasons
    return dataclasses.replace(found, interactions=dataclasses.replace(data, items=clean_catalogue(data.items)))


def read(layout: str, source: str) -> Interactions:
    """The interactions of a folder (or file) in a layout; raises UserError when files are missing or malformed."""
    return load(layout, source).interactions
