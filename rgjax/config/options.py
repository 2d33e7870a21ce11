"""What an option is, how its value is checked, and how a config is stored."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rgjax.errors import UserError


def option(default: Any, help: str, *, choices: tuple | None = None, low: float | None = None, high: float | None = None):
    """A dataclass field that carries its help text and the values it admits (`low` and `high` are inclusive)."""
    meta = {"help": help, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=meta)


def check(config) -> None:
    """Raises UserError naming the first flag of `config` whose value is not admitted."""
    for f in dataclasses.fields(config):
        value, meta = getattr(config, f.name), f.metadata
        if meta.get("choices") and value not in meta["choices"]:
            raise UserError(f"--{f.name}={value} is not known; use one of {', '.join(map(str, meta['choices']))}.")
        if value != value:
            raise UserError(f"--{f.name}={value} is not a number; give one.")
        if meta.get("low") is not None and value < meta["low"]:
            raise UserError(f"--{f.name}={value} is too small; the least is {meta['low']}.")
        if meta.get("high") is not None and value > meta["high"]:
            raise UserError(f"--{f.name}={value} is too large; the most is {meta['high']}.")


def to_json(config) -> dict:
    """A plain dict of a config dataclass, as it is written to `config.json`."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls, values: dict):
    """The inverse of `to_json`; raises UserError when a key is unknown to this version."""
    known = {f.name for f in dataclasses.fields(cls)}
    surplus = sorted(set(values) - known)
    if surplus:
        raise UserError(f"The stored configuration has '{surplus[0]}', unknown to this version of rgjax; use the one that wrote it.")
    return cls(**values)
