"""What benchmarks share: two sides that take turns, the ratio of their pairs, versions, and the table and last line that tell it.

A round calls every side once; the next round begins with the next side, so that neither the machine's load nor the order favours one.
A pair's ratio is the peer's seconds over ours within one round: above 1 we are faster. Its median over the rounds is told with its range.
Sides that could not take turns have no pairs: theirs is the ratio of the medians, without a range.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from launch import app
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("rounds", 7, "Rounds, in each of which every side is timed once; medians are told.", lower_bound=3)
flags.DEFINE_enum(
    "precision", "highest", ["highest", "tf32"], "Float32 matrix products on a GPU, on both sides: full, or with inputs rounded to TF32."
)

PEER = ("torch", "transformers")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX starts: torch needs memory of the same GPU


def need(*names: str) -> None:
    """Raises UserError where a library that is compared with is missing."""
    for name in names or PEER:
        if not _installed(name):
            raise UserError(f"{name} is not installed, and the comparison is with it; run pip install 'torch==2.13.0' -e '.[parity]'.")


def torch_device() -> str:
    """Where torch computes: where JAX does."""
    import jax
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def same_precision() -> None:
    """Both libraries multiply float32 matrices as --precision says; on a GPU their own defaults differ. Products in bfloat16 stay so."""
    import jax
    import torch

    if jax.default_backend() == "gpu" and app.FLAGS.flag_values_dict().get("dtype") != "bfloat16":
        full = app.FLAGS.precision == "highest"
        jax.config.update("jax_default_matmul_precision", "highest" if full else "tensorfloat32")
        torch.set_float32_matmul_precision("highest" if full else "high")


def arrays(read: np.ndarray, examples: int = 1) -> dict[str, np.ndarray]:
    """Token ids [B, T], `examples` of equal length to a row, as training reads them: each but an example's last has the next as its target."""
    (rows, length), each = read.shape, read.shape[1] // examples
    weights = np.ones_like(read)
    weights[:, each - 1 :: each] = 0
    place = np.broadcast_to(np.arange(length, dtype=np.int32), read.shape)
    return {
        "tokens": read, "targets": np.roll(read, -1, axis=1), "weights": weights, "segment_ids": 1 + place // each, "positions": place % each,
        "segment_lengths": np.full((rows, examples), each, np.int32),
    }  # fmt: skip


def held(batch: dict) -> dict[str, int]:
    """Real tokens, target tokens, examples and slots (padding included) of one of our batches."""
    ids = [batch[name] for name in ("segment_ids", "encoder_segment_ids") if name in batch]
    return {
        "tokens": int(sum((i > 0).sum() for i in ids)),
        "target_tokens": int(batch["weights"].sum()),
        "examples": int(ids[0].max(axis=1).sum()),
        "slots": sum(i.size for i in ids),
    }


def as_numpy(value) -> np.ndarray:
    """Of a JAX array or a torch tensor, float32."""
    return value.float().cpu().numpy() if hasattr(value, "cpu") else np.asarray(value, np.float32)


def wait(value: object) -> None:
    """Returns once `value` and all that a torch GPU was asked for are computed."""
    import jax

    jax.block_until_ready(value)
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _nothing(_: str) -> None:
    pass


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call and of what it started."""
    began = time.perf_counter()
    wait(call())
    return time.perf_counter() - began


def take_turns(
    sides: dict[str, Callable[[], object]], rounds: int, before: Callable[[str], object] = _nothing, after: Callable[[str], object] = _nothing
) -> dict[str, dict]:
    """Of each side: `compile_seconds` (its first call), `seconds` (median), `fastest`, `slowest` and all `rounds`, in seconds.

    `before` and `after` are called with a side's name around each of its calls, untimed.
    """
    names, times, show, taken = list(sides), {name: [] for name in sides}, app.Lines("turn"), itertools.count(1)
    show(0, total := (rounds + 1) * len(names))
    for r in range(-1, rounds):
        k = max(r, 0) // 2 % len(names)
        order = names[k:] + names[:k]
        for name in reversed(order) if r % 2 and r > 0 else order:  # no side is always first, or always follows the same other
            before(name)
            times[name].append(timed(sides[name]))
            after(name)
            show(next(taken), total)
    return {name: {"compile_seconds": first, **spread(rest), "rounds": rest} for name, (first, *rest) in times.items()}


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median `seconds`, `fastest` and `slowest`."""
    return {"seconds": statistics.median(times), "fastest": min(times), "slowest": max(times)}


def ratio(ours: Sequence[float], peer: Sequence[float], paired: bool = True) -> dict[str, float]:
    """The pairs' ratio peer / ours of both sides' rounds: `median`, `lowest`, `highest`; `of_medians` alone where rounds are no pairs."""
    if not paired:
        return {"of_medians": statistics.median(peer) / statistics.median(ours)}
    pairs = [b / a for a, b in zip(ours, peer, strict=True)]
    return {"median": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def versions(*names: str) -> dict[str, str]:
    """Versions of jax, flax, the peer's libraries and `names`, as far as they are installed."""
    known = dict.fromkeys(("jax", "flax", *PEER, *names))
    return {name: importlib.metadata.version(name) for name in known if _installed(name)}


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def device() -> str:
    """What both sides compute on."""
    import jax

    where = f"; torch on {torch_device()}" if _installed("torch") else ""
    return f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores{where}"


def table(found: dict[str, dict], work: float, unit: str, paired: bool = True) -> str:
    """Seconds, their spread, rate (`work` units a call) and first call of each side, and its ratio to `ours`."""
    width = max(map(len, found)) + 2
    lines = [f"{'':<{width}} {'seconds':>9} {'fastest':>9} {'slowest':>9} {unit + '/s':>18} {'first call s':>13}  {'ours is ... times as fast'}"]
    for name, f in found.items():
        times = f"{f['seconds']:>9.4f} {f['fastest']:>9.4f} {f['slowest']:>9.4f} {work / f['seconds']:>18,.1f} {f['compile_seconds']:>13.1f}"
        lines.append(f"{name:<{width}} {times}  {'' if name == 'ours' else told(ratio(found['ours']['rounds'], f['rounds'], paired))}")
    return "\n".join(lines)


def told(found: dict[str, float]) -> str:
    """A ratio as text, with its range where it has one."""
    if "of_medians" in found:
        return f"{found['of_medians']:.2f} (of the medians; the rounds are no pairs)"
    return f"{found['median']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"


def summary(found: dict[str, dict], peer: str, paired: bool = True, **more) -> dict:
    """The last line: `ours`, `peer` (the side so named), their `ratio`, `device`, `versions`, all `sides` and their raw `rounds`."""
    sides = {name: {k: v for k, v in f.items() if k != "rounds"} for name, f in found.items()}
    return {
        "ours": sides["ours"], "peer": {"side": peer, **sides[peer]}, "ratio": ratio(found["ours"]["rounds"], found[peer]["rounds"], paired),
        "device": device(), "versions": versions(), "load_average": os.getloadavg()[0], "sides": sides,
        "rounds": {name: f["rounds"] for name, f in found.items()}, **more,
    }  # fmt: skip
