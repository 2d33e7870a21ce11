"""A shop's raw interactions -> its dataset folder (see `rgjax.data.shop_folder`)."""

from __future__ import annotations

import pathlib
import time

from rgjax import config as config_lib
from rgjax.config import PrepareConfig
from rgjax.data import demo_shop, shop_folder, shops
from rgjax.data.shops.common import Found
from rgjax.data.staging import staging, write_json
from rgjax.errors import UserError

LAYOUTS = (*shops.LAYOUTS, "demo_shop")
_KEPT = ("layout", "max_duplicate_share")  # the flags that say what is in the folder
_DEMO = ("demo_users", "demo_items", "seed")


def prepare_shop(config: PrepareConfig) -> dict:
    """Writes the folder `config.output`; returns its summary. Raises UserError, and then leaves nothing behind."""
    start, demo = time.monotonic(), config.layout == "demo_shop"
    if flag := next((name for name in ("controls", "length_bands", "derive_words") if getattr(config, name)), ""):
        raise UserError(f"--{flag}={getattr(config, flag)} is about reasons, and --layout={config.layout} holds none; leave it out.")
    with staging(pathlib.Path(config.output), config.overwrite) as folder:
        told = shops.options(config.now, config.max_duplicate_share)
        found, truth = demo_shop.make(config) if demo else (shops.load(config.layout, config.source, told), None)
        manifest = shop_folder.write(found.interactions, folder, _facts(config, found, demo), found.bundles)
        if truth:
            write_json(folder / "truth.json", truth)
    summary = {"dataset": config.output, "counts": manifest["counts"], "dropped": manifest["dropped"]}
    return summary | {"seconds": round(time.monotonic() - start, 2)}


def _facts(config: PrepareConfig, found: Found, demo: bool) -> dict:
    name = "synthetic-shop" if demo else pathlib.Path(config.source).name if config.layout in ("shop", "bundle_intent") else config.layout
    values, kept = config_lib.to_json(config), _KEPT + (_DEMO if demo else ())
    data = found.interactions
    return {
        "name": name,
        "synthetic": demo,
        "dropped": found.dropped,
        "first": int(data.time.min()),
        "last": int(data.time.max()),
        "untitled_items": sum(not title for title in data.items.titles),
        "config": {flag: values[flag] for flag in kept},
    }
