"""What can be said of a shop's data without a trained run: forecasts of demand, the next order, floors for bundles, and triples."""

from __future__ import annotations

import json
import pathlib

from rgjax.config import EvaluateConfig, ShopConfig
from rgjax.data import shop_folder
from rgjax.data.shop_folder import Shop
from rgjax.errors import UserError
from rgjax.metrics import bootstrap
from rgjax.rank import bundle_floors, demand_model, links, next_basket
from rgjax.train.workdir import replace_text


def report(what: str, config: EvaluateConfig, shop: ShopConfig) -> tuple[dict, str]:
    """(what was measured, a table); `what` is 'demand', 'basket', 'bundles' or 'triples'. Writes evaluation.json into --output if one is given.

    Raises UserError where the shop has no bundles, orders, quantities or triples to measure by.
    """
    found = shop_folder.open_any(config.dataset, shop.layout, shop.source)
    result = {"demand": _demand, "basket": _basket, "bundles": _bundles, "triples": _triples}[what](found, config.split)
    lines = lines_of(result)
    result |= {"dataset": found.manifest["name"], "fingerprint": found.fingerprint, "synthetic": found.synthetic}
    if config.output:
        pathlib.Path(config.output).mkdir(parents=True, exist_ok=True)
        replace_text(pathlib.Path(config.output, "evaluation.json"), json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return result, "\n".join(lines)


def lines_of(result: dict) -> list[str]:
    """Lines for a terminal of values by name, dicts of them, and dicts of these."""
    lines = []
    for name, values in result.items():
        if not isinstance(values, dict):
            lines.append(f"{name:<30}{_shown(values)}")
        elif any(isinstance(inner, dict) for value in values.values() if isinstance(value, dict) for inner in value.values()):
            lines += [name, *("  " + line for line in lines_of(values))]
        else:
            lines += [name] + [f"  {key:<28}{_shown(value)}" for key, value in values.items()]
    return lines


def _shown(value) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _demand(found: Shop, split: str) -> dict:
    told = demand_model.evaluate(found.interactions)
    return told | {"wape": {name: {how: bootstrap.number(value) for how, value in one.items()} for name, one in told["wape"].items()}}


def _basket(found: Shop, split: str) -> dict:
    return next_basket.evaluate(found.interactions)


def _triples(found: Shop, split: str) -> dict:
    return links.evaluate(found.interactions)


def _bundles(found: Shop, split: str) -> dict:
    if found.bundles is None:
        raise UserError(f"The shop '{found.manifest['name']}' has no bundles; measure another, or leave --measure out.")
    return bundle_floors.evaluate(found.interactions, found.bundles, split)
