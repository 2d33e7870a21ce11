"""Whether a checkpoint is as it was written: a manifest of its files beside them, compared before it is read."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib

from rgjax.data.shards import file_sha256
from rgjax.train.workdir import replace_text

MANIFEST = "manifest.json"
_HASHED_AT_ONCE = 4  # files; hashing lets go of the interpreter


def seal(checkpoint: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file of a complete checkpoint into its manifest, whole or not at all."""
    found = dict(_each(_facts, checkpoint, _files(checkpoint)))
    replace_text(checkpoint / MANIFEST, json.dumps({"files": found}, indent=1) + "\n")


def sealed(checkpoint: pathlib.Path) -> bool:
    """Whether it has a manifest; a run that was killed just after a save, or an older version, left none."""
    return (checkpoint / MANIFEST).exists()


def damage(checkpoint: pathlib.Path) -> str:
    """What differs from the manifest, naming the first such file; '' where nothing does, or there is no manifest."""
    if not sealed(checkpoint):
        return ""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {name: (listed["bytes"], listed["sha256"]) for name, listed in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return f"{MANIFEST} is unreadable"
    for name, (size, _) in wanted.items():  # the cheap checks come first
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if (now := (checkpoint / name).stat().st_size) != size:
            return f"{name} has {now:,} bytes instead of {size:,}"
    for name, facts in _each(_facts, checkpoint, list(wanted)):
        if facts["sha256"] != wanted[name][1]:
            return f"the content of {name} has changed since it was written"
    return ""


def unlistable(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in `folder` whose metrics are no JSON: Orbax would not even list the others beside them."""
    return [path for path in sorted(folder.glob("[0-9]*")) if path.name.isdigit() and not _parses(path / "metrics" / "metrics")]


def _parses(path: pathlib.Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def set_aside(checkpoint: pathlib.Path) -> pathlib.Path:
    """Renames a damaged checkpoint, to a name that no step has; returns the new one."""
    goal, n = checkpoint.with_name(f"damaged-{checkpoint.name}"), 1
    while goal.exists():
        n += 1
        goal = checkpoint.with_name(f"damaged-{checkpoint.name}-{n}")
    os.rename(checkpoint, goal)
    return goal


def _files(checkpoint: pathlib.Path) -> list[str]:
    found = (p.relative_to(checkpoint).as_posix() for p in sorted(checkpoint.rglob("*")) if p.is_file())
    return [name for name in found if not name.startswith(MANIFEST)]


def _facts(path: pathlib.Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _each(call, checkpoint: pathlib.Path, names: list[str]):
    with concurrent.futures.ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return list(zip(names, pool.map(lambda name: call(checkpoint / name), names), strict=True))
