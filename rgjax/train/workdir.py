"""The folder of one run: what it was configured with, and whether another configuration may continue it."""

from __future__ import annotations

import dataclasses
import fcntl
import filecmp
import json
import os
import pathlib
import shutil
from typing import IO

from rgjax import config as config_lib
from rgjax.config import (
    AdapterConfig,
    AdversarialConfig,
    BehaviourConfig,
    BundleConfig,
    DecodeConfig,
    DiscriminatorConfig,
    GroupConfig,
    InputConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
    ShopConfig,
    TrainConfig,
)
from rgjax.errors import UserError

SECTIONS = {
    "input": InputConfig, "model": ModelConfig, "adapter": AdapterConfig, "optimizer": OptimizerConfig, "train": TrainConfig,
    "decode": DecodeConfig, "shop": ShopConfig, "behaviour": BehaviourConfig, "bundle": BundleConfig,
    "adversarial": AdversarialConfig, "discriminator": DiscriminatorConfig, "reward": RewardConfig, "group": GroupConfig,
}  # fmt: skip
BEGUN = ("flags.cfg", "flags.cfg.tmp", "config.json.tmp")  # all that there is of a run which ended before its configuration was written
# These may differ when a run is continued: they change neither the parameters' shapes nor which examples come next.
FREE = {
    "dataset", "source", "layout", "item_table", "replay", "distill", "item_vectors", "user_vectors", "adapter_from", "workers", "prefetch",
    "workdir", "steps", "mesh", "log_every", "eval_every", "eval_batches", "save_every", "keep", "patience", "samples", "nonfinite",
    "preempted_code",
    "profile_steps", "compilation_cache", "optimization_level", "scan", "remat", "attention", *(f.name for f in dataclasses.fields(DecodeConfig)),
}  # fmt: skip


def read(workdir: str | pathlib.Path) -> dict:
    """The run's `config.json`: its sections as dataclasses, and `dataset_fingerprint`, `replay_fingerprints`,
    `distill_fingerprint`, `dataset_name`, `vocab_size`, `controls`, `task` and `synthetic`.

    Raises UserError when the folder holds no run or the file is damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no config.json); give the --workdir of a launch.train run.")
    stored = _json(path)
    if not _of_run(stored):
        raise UserError(f"{workdir} holds no run (its config.json is not a run's); give the --workdir of a launch.train run.")
    if odd := next((name for name in SECTIONS if not isinstance(stored.get(name, {}), dict)), None):
        raise UserError(f"{path} is damaged ({odd} is no object); restore it, or start a new run in another folder.")
    facts = stored | {name: config_lib.from_json(cls, stored.get(name, {})) for name, cls in SECTIONS.items()}
    if not facts["input"].streams and "processes" in facts:  # an older run: each process read a stream of its own
        facts["input"] = dataclasses.replace(facts["input"], streams=facts["processes"])
    return facts


def write(workdir: str | pathlib.Path, facts: dict) -> None:
    """Writes config.json, and the same options as a flagfile, flags.cfg; `facts` as `read` returns them."""
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {k: config_lib.to_json(v) if k in SECTIONS else v for k, v in facts.items()}
    replace_text(folder / "flags.cfg", flagfile({name: facts[name] for name in SECTIONS}))
    replace_text(folder / "config.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def flagfile(sections: dict) -> str:
    """Lines for absl's --flagfile of the options that differ from their defaults; one that absl would read otherwise is a comment."""
    lines = []
    for name, section in sections.items():
        usual = SECTIONS[name]()
        for f in dataclasses.fields(section):
            value = str(getattr(section, f.name))
            if value != str(getattr(usual, f.name)):
                plain = value == value.strip() and len(value.splitlines()) <= 1
                lines.append(f"--{f.name}={value}\n" if plain else f"# --{f.name}: see config.json; it has line breaks or spaces at its ends\n")
    return "".join(lines)


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    fresh = path.with_suffix(path.suffix + ".tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def copy(source: str | pathlib.Path, folder: str | pathlib.Path) -> None:
    """Copies the files of a folder, each whole or not at all; those that are there already stay untouched."""
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(pathlib.Path(source).iterdir()):
        there = target / path.name
        if not there.is_file() or not filecmp.cmp(path, there, shallow=False):
            shutil.copyfile(path, fresh := target / f"{path.name}.tmp")
            os.replace(fresh, there)


def exists(workdir: str | pathlib.Path) -> bool:
    """Whether a run lives in this folder; raises UserError when something else does."""
    folder = pathlib.Path(workdir)
    if (folder / "config.json").is_file() and _of_run(_json(folder / "config.json")):
        return True
    if folder.is_dir() and any(p.name not in BEGUN for p in folder.iterdir()):
        raise UserError(f"--workdir={workdir} is not empty and holds no run; give a new or empty folder.")
    return False


def claim(workdir: str | pathlib.Path) -> IO:
    """What keeps another training process out of the folder, as long as this one lives and holds it; raises UserError where one is there."""
    held = open(pathlib.Path(workdir, "lock"), "a", encoding="utf-8")
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # worker processes do not inherit this kind
    except (BlockingIOError, PermissionError):
        held.close()
        raise UserError(f"Another process is training in {workdir}; wait until it ends or stop it, or give a new --workdir.") from None
    except OSError:  # a file system that has no locks
        pass
    return held


def is_run(folder: str | pathlib.Path) -> bool:
    """Whether config.json there is that of a run (a Hugging Face folder has one too)."""
    path = pathlib.Path(folder) / "config.json"
    try:
        return path.is_file() and _of_run(_json(path))
    except UserError:
        return False


def _of_run(stored: object) -> bool:
    return isinstance(stored, dict) and {"dataset_fingerprint", "model", "train"} <= set(stored)


def _json(path: pathlib.Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{path} is damaged; restore it, or start a new run in another folder.") from None


def check_same(workdir: str, stored: dict, now: dict) -> None:
    """Raises UserError naming the first option in which `now` would not continue the `stored` run."""
    if stored["dataset_fingerprint"] != now["dataset_fingerprint"]:
        raise UserError(f"{workdir} was trained on another dataset than --dataset={now['input'].dataset}; give that one, or a new --workdir.")
    if stored.get("replay_fingerprints", []) != now.get("replay_fingerprints", []):
        raise UserError(f"{workdir} was trained with other datasets than --replay={now['input'].replay}; give those, or a new --workdir.")
    if stored.get("vectors_fingerprint") != now.get("vectors_fingerprint"):
        raise UserError(f"{workdir} was trained with other vectors than --item_vectors and --user_vectors hold; give those, or a new --workdir.")
    if stored.get("distill_fingerprint", "") != now.get("distill_fingerprint", ""):
        raise UserError(f"{workdir} was trained with another teacher than --distill={now['input'].distill}; give that one, or a new --workdir.")
    if stored.get("discriminator_fingerprint", "") != now.get("discriminator_fingerprint", ""):
        judge = now["reward"].discriminator_from
        raise UserError(f"{workdir} was rewarded by another discriminator than --discriminator_from={judge} has by now; restore it, or start anew.")
    if stored["vocab_size"] != now["vocab_size"]:
        sizes = f"{stored['vocab_size']} tokens in its vocabulary, not {now['vocab_size']}"
        raise UserError(f"{workdir} was started with {sizes}; go on with as many, or give a new --workdir.")
    if "base_fingerprint" in now and stored.get("base_fingerprint") != now["base_fingerprint"]:
        raise UserError(f"{workdir} was started with other weights than --init_from={now['train'].init_from} holds; give those, or a new --workdir.")
    for section in SECTIONS:
        before, after = config_lib.to_json(stored[section]), config_lib.to_json(now[section])
        for name in before:
            if name == "init_from" and "base_fingerprint" in now:  # the same weights may lie elsewhere by now
                continue
            if name == "streams" and not before[name]:  # an older run that did not keep how many it had
                continue
            if before[name] != after[name] and name not in FREE:
                raise UserError(
                    f"{workdir} was started with --{name}={before[name]}, not {after[name]}; leave the flag out to go on, or give a new --workdir."
                )
