"""What an adapter folder of PEFT or AdapterHub says of itself: its configuration and the headers of its tensors, no weights."""

from __future__ import annotations

import math
import pathlib
import re

from rgjax.errors import UserError
from rgjax.hf.folder import mapped, read_json

FILES = ("adapter_model.safetensors", "adapter.safetensors", "pytorch_adapter.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LAYER = re.compile(r"\.\d+\.")


def is_adapter(path: pathlib.Path) -> bool:
    """Whether the folder holds an adapter (and no whole model)."""
    return (path / "adapter_config.json").is_file()


def read(path: pathlib.Path) -> dict:
    """`format`, `type`, `rank`, `alpha`, `targets`, `base`, `parameters`, `tensors` ({name without layer numbers: [count, shape]}).

    Raises UserError when a file is missing, damaged or a pickle, or holds no tensor.
    """
    config = read_json(path / "adapter_config.json")
    file = next((path / name for name in FILES if (path / name).is_file()), None)
    if file is None:
        pickle = next((p.name for p in sorted(path.iterdir()) if p.suffix in PICKLES), "")
        if pickle:
            raise UserError(f"{path}/{pickle} is a pickle, which rgjax never opens; save the adapter again as safetensors.")
        raise UserError(f"{path} holds adapter_config.json and none of {', '.join(FILES)}; fetch the weights too.")
    tensors = mapped(file)
    odd = next((name for name, tensor in tensors.items() if isinstance(tensor, str)), None)
    if odd or not tensors:
        what = f"the tensor {odd} of type {tensors[odd]}, not a float" if odd else "no tensor"
        raise UserError(f"{file} holds {what}; save the adapter again.")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    facts = _hub(config, shapes) if "peft_type" not in config else _peft(path, config, shapes)
    sizes = {"parameters": sum(map(math.prod, shapes.values())), "bytes": sum(t.nbytes for t in tensors.values())}
    return facts | sizes | {"dtypes": sorted({str(t.dtype) for t in tensors.values()}), "tensors": _grouped(shapes)}


def _peft(path: pathlib.Path, config: dict, shapes: dict[str, tuple]) -> dict:
    field = next((name for name in ("target_modules", "modules_to_save") if config.get(name)), "")
    targets = config.get(field, [])
    if not isinstance(targets, str) and not (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        raise UserError(f"{path}/adapter_config.json has {field}={targets!r}, which is no list of names; save the adapter again.")
    ranks = {shape[0] for name, shape in shapes.items() if ".lora_A" in name or name.endswith("lora_E")}
    said = [config.get(name) for name in ("r", "num_virtual_tokens") if config.get(name)]
    return {
        "format": "PEFT",
        "type": str(config["peft_type"]) + (" (DoRA)" if config.get("use_dora") else ""),
        "rank": said[0] if said and len(ranks) < 2 else sorted(ranks) or None,
        "alpha": config.get("lora_alpha"),
        "targets": [targets] if isinstance(targets, str) else sorted(targets),
        "base": config.get("base_model_name_or_path") or "",
    }


def _hub(config: dict, shapes: dict[str, tuple]) -> dict:
    inner = config.get("config")
    inner = inner if isinstance(inner, dict) else {}
    down = {shape[0] for name, shape in shapes.items() if ".adapter_down." in name and len(shape) == 2}
    kinds = {"adapter_down": "bottleneck", "lora_A": "lora", "prefix": "prefix", "prompt": "prompt"}
    found = next((kind for part, kind in kinds.items() if any(part in name for name in shapes)), "unknown")
    return {
        "format": "AdapterHub",
        "type": str(inner.get("architecture") or found),
        "rank": inner.get("r") or (min(down) if len(down) == 1 else sorted(down) or None),
        "alpha": inner.get("alpha"),
        "targets": sorted({part for name in shapes for part in name.split(".") if part.endswith(("_adapters", "_proj", "c_attn"))}),
        "base": config.get("model_name") or "",
    }


def _grouped(shapes: dict[str, tuple]) -> dict[str, list]:
    """Tensors alike but for their layer, as {name with * for the layer: [how many, a shape]}."""
    found: dict[str, list] = {}
    for name, shape in shapes.items():
        found.setdefault(_LAYER.sub(".*.", name), [0, list(shape)])[0] += 1
    return found
