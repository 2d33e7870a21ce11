"""A local Hugging Face folder: its configuration as data, its tensors mapped into memory. Nothing in it is ever executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import pathlib

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from rgjax.errors import UserError

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_INDEX = "model.safetensors.index.json"
_UNSAID = {"decoder_start_token_id": 2, "forced_eos_token_id": 2}  # of a BART that does not say


@dataclasses.dataclass(frozen=True)
class Folder:
    """`config` is config.json; `tensors` are read from disk only where they are sliced. One that holds no floats is its type's name."""

    path: pathlib.Path
    config: dict
    tensors: dict[str, np.ndarray | str]

    @classmethod
    def open(cls, path: str | pathlib.Path) -> Folder:
        """Raises UserError when a file is missing or damaged, or needs code or a pickle to be read."""
        path = pathlib.Path(path)
        if not path.is_dir():
            raise UserError(f"--init_from={path} is no local folder; give one with config.json, tokenizer.json and model.safetensors.")
        config = read_json(path / "config.json")
        if "auto_map" in config:
            raise UserError(f"{path}/config.json has auto_map, which names code to run; rgjax runs none, use a model without it.")
        if config.get("quantization_config"):
            raise UserError(f"{path}/config.json has quantization_config; use the model's float weights instead.")
        return cls(path, config, _tensors(path))

    @property
    def fingerprint(self) -> str:
        """sha256 over config.json and each tensor's name, type, shape, first and last values: tells weights apart without reading all."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode())
            if not isinstance(tensor, str):
                ends = tensor.reshape(-1)[[*range(min(64, tensor.size)), *range(max(tensor.size - 64, 0), tensor.size)]]
                digest.update(f"{tensor.dtype}{tensor.shape}".encode() + ends.tobytes())
        return digest.hexdigest()

    def token_ids(self) -> dict:
        """The begin, end, padding, start and forced ids that the folder generates with."""
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")
        generation = self.path / "generation_config.json"
        unsaid = _UNSAID if self.config.get("model_type") == "bart" else {}
        said = unsaid | self.config | (read_json(generation) if generation.is_file() else {})
        return {name: said[name] for name in names if said.get(name) is not None}


def release(tensor: np.ndarray) -> None:
    """Lets go of what was read of a mapped tensor: its pages count as this process's memory until then. It can be read again."""
    root = tensor
    while isinstance(root.base, np.ndarray):
        root = root.base
    if isinstance(root.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and tensor.nbytes:
        first = tensor.ctypes.data - root.ctypes.data
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        root.base.madvise(mmap.MADV_DONTNEED, start, first + tensor.nbytes - start)


def read_json(path: pathlib.Path) -> dict:
    """The object in a JSON file; raises UserError when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give a whole Hugging Face folder.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (no JSON object); fetch it again.")
    return found


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray | str]:
    if (folder / "model.safetensors").is_file():
        return mapped(folder / "model.safetensors")
    if (folder / _INDEX).is_file():
        return _sharded(folder)
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        raise UserError(f"{folder}/{pickles[0]} is a pickle, which rgjax never opens; save the model again as safetensors.")
    raise UserError(f"{folder} holds no model.safetensors and no {_INDEX}; give a folder with weights.")


def _sharded(folder: pathlib.Path) -> dict[str, np.ndarray | str]:
    places = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{folder}/{_INDEX} is damaged (no weight_map of file names); fetch it again.")
    files = {}
    for file in sorted(set(places.values())):
        if pathlib.PurePath(file).name != file or not (folder / file).is_file():
            raise UserError(f"{folder}/{file}, named in {_INDEX}, is missing; fetch it again.")
        files[file] = mapped(folder / file)
    for name, file in places.items():
        if name not in files[file]:
            raise UserError(f"{folder}/{file} lacks the tensor {name} that {_INDEX} places there; fetch both again.")
    return {name: tensor for tensors in files.values() for name, tensor in tensors.items()}


def mapped(path: pathlib.Path) -> dict[str, np.ndarray | str]:
    """Views into one memory-mapped file (safe_open itself has no bfloat16 for NumPy, but checks that the file is whole)."""
    try:
        with safe_open(path, "numpy"):
            pass
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}); fetch it again.") from None
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    data, found = np.memmap(path, np.uint8, "r"), {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _TYPES:
            found[name] = entry["dtype"]
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        found[name] = data[first:last].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return found
