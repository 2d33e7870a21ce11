"""Rows by seed of a benchmark of text GANs, kept as they are done, so that a run that was interrupted goes on."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Callable, Sequence

import numpy as np
from safetensors.numpy import load_file, save_file

from rgjax.config import AdversarialConfig, BenchConfig, DiscriminatorConfig, to_json
from rgjax.errors import UserError
from rgjax.tasks.text_gans.learning import BATCH, ROWS, Bench, options
from rgjax.train import adversarial
from rgjax.train.workdir import replace_text

LEARNED = ("mle", "mle_published")
FREE = ("rows", "seeds")  # options under which what is done stays as it is
USUAL = {name: value for of in (BenchConfig, AdversarialConfig, DiscriminatorConfig) for name, value in to_json(of()).items()}  # of older files
FILES = ("oracle.json", "captions.json")  # of the benchmarks, each in a folder of its own


def checked(config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, length: int) -> list[str]:
    """--rows as names, for texts of at most `length` tokens; raises UserError for one that is not known, and for options that contradict each
    other, or the benchmark."""
    rows = parse(config.rows)
    if judge.d_codes:
        raise UserError("--d_codes is for texts with control codes, and these have none; leave it out.")
    for row in filter(lambda row: row in ROWS, rows):
        adversarial.check(options(row, config, gan), BATCH, length)
    return rows


def parse(text: str) -> list[str]:
    """--rows as names; raises UserError for one that is not known."""
    rows = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for row in rows:
        if row not in (*LEARNED, *ROWS) and _temperature(row) is None:
            raise UserError(f"--rows has '{row}'; use mle, mle@TEMPERATURE, mle_published, {', '.join(ROWS)}.")
    if not rows:
        raise UserError("--rows names no row; give some, as mle,constant_reward.")
    return rows


def _temperature(row: str) -> float | None:
    name, _, value = row.partition("@")
    try:
        return float(value) if name == "mle" and float(value) > 0 else None
    except ValueError:
        return None


def measure(kept: Kept, rows: list[str], seeds: int, make: Callable[[], Bench], show: Callable[[int, int], None]) -> None:
    """Adds to `kept` what it lacks of rows and seeds; `make` is called where anything does, and may note facts in it."""
    jobs = [(row, seed) for seed in range(seeds) for row in rows if str(seed) not in kept.found.get(row, {})]
    bench = make() if jobs else None
    for i, (row, seed) in enumerate(jobs):
        show(i, len(jobs))
        name = "mle_published" if row == "mle_published" else "mle"
        learned = kept.model(name, seed, lambda seed=seed, name=name: bench.learned(seed, name == "mle_published"))
        kept.add(row, seed, _one(bench, row, seed, *learned))
    show(len(jobs), len(jobs))


def _one(bench: Bench, row: str, seed: int, params: dict, epoch: int) -> dict:
    if row not in ROWS:
        return bench.measured(params, seed, _temperature(row) or 1.0) | {"epoch": epoch}
    tuned, noticed = bench.tuned(row, seed, params)
    used = to_json(options(row, bench.config, bench.gan))
    return bench.measured(tuned, seed) | noticed | {"options": used}


def summary(seeds: list[dict], columns: Sequence[str]) -> dict:
    """Means over the seeds, their standard deviations as `spread` (0 of one), and the `seeds` one by one."""
    mean = {name: statistics.fmean(one[name] for one in seeds) for name in columns}
    spread = {name: statistics.stdev(one[name] for one in seeds) if len(seeds) > 1 else 0.0 for name in columns}
    return mean | {"spread": spread, "seeds": seeds}


def table(head: str, result: dict[str, dict], columns: Sequence[str]) -> str:
    """Lines for a terminal; a row may lack columns."""
    lines = [head, "".join([f"{'':<22}", *(f"{name:>18}" for name in columns)])]
    for row, found in result.items():
        cells = [f"{found[name]:.3f} ({found['spread'][name]:.3f})" if name in found else "-" for name in columns]
        lines.append("".join([f"{row:<22}", *(f"{cell:>18}" for cell in cells)]))
        lines += [f"    seed {seed}: {one['note']}" for seed, one in enumerate(found["seeds"]) if "note" in one]
    return "\n".join(lines)


@dataclasses.dataclass
class Kept:
    """What is done: `found[row][seed]`, and `facts` of the benchmark, in a file of a folder, or in memory where none is given."""

    file: pathlib.Path | None
    options: dict
    facts: dict
    found: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)
    models: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, folder: str, name: str, given: dict, facts: dict) -> Kept:
        """That of the file `name`; raises UserError when its figures, or the folder's, came of other options."""
        options = {option: value for option, value in given.items() if option not in FREE}
        made = cls(pathlib.Path(folder, name) if folder else None, options, dict(facts))
        if not made.file:
            return made
        if other := next((other for other in FILES if other != name and made.file.with_name(other).exists()), ""):
            raise UserError(f"--output={folder} has {other}, the figures of another benchmark; give another folder.")
        if made.file.exists():
            made._read()
        else:
            made.write()  # before any generator is kept beside it
        return made

    def _read(self) -> None:
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            before, self.found, self.facts = stored["options"], stored["found"], {name: stored[name] for name in self.facts}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.file} is damaged; restore it, or give another --output.") from None
        if odd := next((name for name in self.options if before.get(name, USUAL.get(name)) != self.options[name]), None):
            now = self.options[odd]
            raise UserError(f"{self.file} has figures of --{odd}={before.get(odd)}, not {now}; go on with that, or give another --output.")

    def add(self, row: str, seed: int, values: dict) -> None:
        """Keeps one row's figures of a seed."""
        self.found.setdefault(row, {})[str(seed)] = values
        if self.file:
            self.write()

    def write(self) -> None:
        """Puts everything into the folder."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self.file, json.dumps({"options": self.options, **self.facts, "found": self.found}, indent=1) + "\n")

    def rows(self, rows: list[str], seeds: int, columns: Sequence[str]) -> dict[str, dict]:
        """The `summary` of each row."""
        return {row: summary([self.found[row][str(seed)] for seed in range(seeds)], columns) for row in rows}

    def model(self, name: str, seed: int, learn: Callable[[], tuple[dict, int]]) -> tuple[dict, int]:
        """A generator of maximum likelihood and its epoch: the one of that name here, or learned and kept."""
        if (name, seed) not in self.models:
            path = self.file and self.file.with_name(f"{name}-{seed}.safetensors")
            self.models = {(name, seed): _load(path) if path and path.exists() else _kept(learn(), path)}  # one at a time
        return self.models[name, seed]


def _load(path: pathlib.Path) -> tuple[dict, int]:
    params = load_file(path)
    return params, int(params.pop("epoch")[0])


def _kept(learned: tuple[dict, int], path: pathlib.Path | None) -> tuple[dict, int]:
    if path:
        arrays = {name: np.asarray(value) for name, value in learned[0].items()} | {"epoch": np.full(1, learned[1], np.int32)}
        save_file(arrays, f"{path}.tmp")
        pathlib.Path(f"{path}.tmp").replace(path)
    return learned
