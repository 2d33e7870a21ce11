"""Bottleneck adapters in AdapterHub's format (the `adapters` library): adapter_config.json and adapter.safetensors, both ways."""

from __future__ import annotations

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.errors import UserError
from rgjax.hf.folder import mapped, read_json
from rgjax.hf.modules import stacked
from rgjax.hf.peft import expect
from rgjax.hf.table import METADATA, Family
from rgjax.models.adapted import AdaptedFactory, sublayers
from rgjax.models.build import ModelFactory
from rgjax.nn.adapters import bottleneck

CONFIG, WEIGHTS = "adapter_config.json", "adapter.safetensors"
TENSORS = {"down": "adapter_down.0.weight", "b_down": "adapter_down.0.bias", "up": "adapter_up.weight", "b_up": "adapter_up.bias"}
# What both presets say beside their own; other values are other computations, which are refused on reading.
FIXED = {
    "adapter_residual_before_ln": False, "cross_adapter": False, "is_parallel": False, "inv_adapter": None, "leave_out": [], "ln_after": False,
    "ln_before": False, "original_ln_after": True, "output_adapter": True, "phm_layer": False, "residual_before_ln": True, "scaling": 1.0,
    "use_gating": False,
}  # fmt: skip
STYLES = {"houlsby": {"mh_adapter": True, "original_ln_before": False}, "pfeiffer": {"mh_adapter": False, "original_ln_before": True}}
UNSAID = {"dropout": 0.0, "stochastic_depth": 0.0, "init_weights": "bert"}


def write(folder: pathlib.Path, factory: AdaptedFactory, family: Family, adapter: dict, name: str) -> None:
    """Writes the two files into an existing folder; `adapter` holds host arrays. Raises UserError where the library lacks the family."""
    c = factory.adapter
    width = next(leaf.shape[-1] for path, leaf in trees.flat(adapter) if path.endswith(".down"))
    own = {"non_linearity": bottleneck.ACTIVATION[c.bottleneck], "reduction_factor": factory.config.width / width}
    body = FIXED | UNSAID | STYLES[c.bottleneck] | own
    about = {"hidden_size": factory.config.width, "model_class": family.model_class, "model_type": family.name, "model_name": "", "name": name}
    tensors = {}
    for path, layers in sublayers(factory.base, c.bottleneck):
        values, place = trees.at(adapter, path), _place(family, path)
        for ours, theirs in TENSORS.items():
            for i in range(layers):
                value = np.asarray(values[ours][i], np.float32)
                tensors[f"{place.format(i=i)}.adapters.{name}.{theirs}"] = np.ascontiguousarray(value.T)
    text = json.dumps({"config": body, **about, "version": "adapters.1.3.0"}, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    save_file(tensors, folder / WEIGHTS, metadata=METADATA)


def _place(family: Family, path: str) -> str:
    """Where the library keeps what follows our sub-layer at `path`; a whole block's is its feed-forward's."""
    stack, part = path.split(".blocks")
    places = family.bottlenecks.get(stack)
    if places is None:
        raise UserError(f"AdapterHub has no place for bottlenecks of a {family.name} model; train the adapter with --adapter=lora to hand it over.")
    return places[part.removeprefix(".") or "mlp"]


def read(folder: str | pathlib.Path, factory: ModelFactory, family: Family) -> tuple[AdapterConfig, dict]:
    """(our options, nested dict of float32 arrays) of such a folder; raises UserError as `peft.read`."""
    folder = pathlib.Path(folder)
    described = read_json(folder / CONFIG)
    body, name = described.get("config"), described.get("name")
    if not isinstance(body, dict) or not isinstance(name, str):
        raise UserError(f"{folder}/{CONFIG} lacks config or name; save the adapter again.")
    style = "houlsby" if body.get("mh_adapter") else "pfeiffer"
    for field, value in (FIXED | STYLES[style] | {"non_linearity": bottleneck.ACTIVATION[style]}).items():
        if body.get(field, value) != value:
            raise UserError(f"{folder}/{CONFIG} says {field}={body[field]!r}, and rgjax computes {value!r} with it only; use another adapter.")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}/{WEIGHTS} is missing; save the adapter again as safetensors.")
    left, values, width = dict(mapped(folder / WEIGHTS)), {}, factory.config.width
    if odd := next((n for n, tensor in left.items() if isinstance(tensor, str)), None):
        raise UserError(f"{folder}/{WEIGHTS} holds the tensor {odd} of type {left[odd]}, not a float; save the adapter again.")
    for path, layers in sublayers(factory, style):
        place, inner = _place(family, path), [None] * layers
        for ours, theirs in TENSORS.items():
            names = [f"{place.format(i=i)}.adapters.{name}.{theirs}" for i in range(layers)]
            if missing := [n for n in names if n not in left]:
                raise UserError(f"{folder}/{WEIGHTS} lacks the tensor {missing[0]}; it is an adapter for another base.")
            shapes = [{"down": (i, width), "b_down": (i,), "up": (width, i), "b_up": (width,)}[ours] for i in inner]
            arrays = [expect(folder, n, left.pop(n), shape) for n, shape in zip(names, shapes, strict=True)]
            inner = [len(array) for array in arrays] if ours == "down" else inner
            trees.put(values, f"{path}.{ours}", stacked([array.T for array in arrays]))
    if left:
        raise UserError(f"{folder}/{WEIGHTS} holds {next(iter(left))}, which has no place in this {family.name} model; it is for another base.")
    inner = next(leaf.shape[-1] for path, leaf in trees.flat(values) if path.endswith(".down"))
    return AdapterConfig(adapter="bottleneck", bottleneck=style, reduction=max(1, width // inner)), values
