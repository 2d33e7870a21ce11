"""The oracle benchmark's table: rows by seed, kept as they are done, so that a run that was interrupted goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import statistics
from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file, save_file

from rgjax.config import AdversarialConfig, DiscriminatorConfig, OracleConfig, to_json
from rgjax.errors import UserError
from rgjax.tasks.oracle import BATCH, ROWS, Bench, options, truth
from rgjax.train import adversarial
from rgjax.train.workdir import replace_text

COLUMNS = ("nll_oracle", "nll_test", "nll_div", "j")
LEARNED = ("mle", "mle_published")
FREE = ("rows", "seeds")  # options under which what is done stays as it is


def evaluate(
    config: OracleConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, output: str, show: Callable[[int, int], None]
) -> tuple[dict, str]:
    """(row -> means over the seeds of nll_oracle, nll_test, nll_div and j with their `spread` and the `seeds` one by one, a table).

    With a folder `output`, oracle.json there has all of it, and what it has already is not computed again. Raises UserError for unknown rows,
    options that contradict each other, and a folder of another benchmark.
    """
    rows = parse(config.rows)
    for row in filter(lambda row: row in ROWS, rows):
        adversarial.check(options(row, config, gan), BATCH)
    file = "" if config.oracle == "drawn" else hashlib.sha256(read_bytes(config.oracle)).hexdigest()
    kept = Kept.open(output, {**to_json(config), **to_json(gan), **to_json(judge), "oracle": file or config.oracle})
    jobs = [(row, seed) for seed in range(config.seeds) for row in rows if str(seed) not in kept.found.get(row, {})]
    bench = None
    for i, (row, seed) in enumerate(jobs):
        show(i, len(jobs))
        bench = bench or Bench(config, gan, judge, truth(config))
        name = "mle_published" if row == "mle_published" else "mle"
        learned = kept.model(name, seed, lambda seed=seed, name=name, bench=bench: bench.learned(seed, name == "mle_published"))
        kept.add(row, seed, _one(bench, row, seed, *learned), bench.truth.entropy)
    show(len(jobs), len(jobs))
    result = {row: _summary([kept.found[row][str(seed)] for seed in range(config.seeds)]) for row in rows}
    return result | {"oracle": config.oracle, "entropy": kept.entropy}, table(result, kept.entropy)


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


def _one(bench: Bench, row: str, seed: int, params: dict, epoch: int) -> dict:
    if row not in ROWS:
        return bench.measured(params, seed, _temperature(row) or 1.0) | {"epoch": epoch}
    tuned, noticed = bench.tuned(row, seed, params)
    used = to_json(options(row, bench.config, bench.gan))
    return bench.measured(tuned, seed) | noticed | {"options": used}


def _summary(seeds: list[dict]) -> dict:
    mean = {name: statistics.fmean(one[name] for one in seeds) for name in COLUMNS}
    spread = {name: statistics.stdev(one[name] for one in seeds) if len(seeds) > 1 else 0.0 for name in COLUMNS}
    return mean | {"spread": spread, "seeds": seeds}


def table(result: dict, entropy: float) -> str:
    """Lines for a terminal."""
    lines = [f"nats per token, mean (standard deviation) over seeds; the oracle's entropy is {entropy:.3f}, and j of the oracle itself 0"]
    lines.append("".join([f"{'':<22}", *(f"{name:>18}" for name in COLUMNS)]))
    for row, found in result.items():
        cells = [f"{found[name]:.3f} ({found['spread'][name]:.3f})" for name in COLUMNS]
        lines.append("".join([f"{row:<22}", *(f"{cell:>18}" for cell in cells)]))
        lines += [f"    seed {seed}: {one['note']}" for seed, one in enumerate(found["seeds"]) if "note" in one]
    return "\n".join(lines)


@dataclasses.dataclass
class Kept:
    """What is done: `found[row][seed]`, in oracle.json of a folder, or in memory where none is given."""

    folder: pathlib.Path | None
    options: dict
    found: dict[str, dict[str, dict]]
    entropy: float = 0.0
    models: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, folder: str, given: dict) -> Kept:
        """Raises UserError when the folder's figures came of other options."""
        options = {name: value for name, value in given.items() if name not in FREE}
        made = cls(pathlib.Path(folder) if folder else None, options, {})
        if not made.folder:
            return made
        if not made.file.exists():
            made.write()  # before any generator is kept beside it
            return made
        try:
            stored = json.loads(made.file.read_text(encoding="utf-8"))
            before, made.found, made.entropy = stored["options"], stored["found"], stored["entropy"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{made.file} is damaged; restore it, or give another --output.") from None
        if odd := next((name for name in options if before.get(name) != options[name]), None):
            raise UserError(f"{made.file} has figures of --{odd}={before.get(odd)}, not {options[odd]}; go on with that, or give another --output.")
        return made

    @property
    def file(self) -> pathlib.Path:
        """Where the figures lie."""
        return self.folder / "oracle.json"

    def add(self, row: str, seed: int, values: dict, entropy: float) -> None:
        """Keeps one row's figures of a seed."""
        self.found.setdefault(row, {})[str(seed)], self.entropy = values, entropy
        if self.folder:
            self.write()

    def write(self) -> None:
        """Puts everything into the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"options": self.options, "entropy": self.entropy, "found": self.found}, indent=1)
        replace_text(self.file, text + "\n")

    def model(self, name: str, seed: int, learn: Callable[[], tuple[dict, int]]) -> tuple[dict, int]:
        """A generator of maximum likelihood and its epoch: the one of that name here, or learned and kept."""
        if (name, seed) not in self.models:
            path = self.folder and self.folder / f"{name}-{seed}.safetensors"
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


def read_bytes(path: str) -> bytes:
    """The file of --oracle; raises UserError where there is none."""
    if not pathlib.Path(path).is_file():
        raise UserError(f"--oracle={path} is no file; give an .npz file of an oracle, or 'drawn'.")
    return pathlib.Path(path).read_bytes()
