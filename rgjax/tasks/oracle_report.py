"""The oracle benchmark's table: rows by seed, kept as they are done, so that a run that was interrupted goes on."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file, save_file

from rgjax import trees
from rgjax.config import AdversarialConfig, DiscriminatorConfig, OracleConfig, to_json
from rgjax.errors import UserError
from rgjax.tasks.oracle import BATCH, ROWS, Bench, truth
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
        adversarial.check(dataclasses.replace(gan, **ROWS[row]), BATCH)
    kept = Kept.open(output, {**to_json(config), **to_json(gan), **to_json(judge)})
    jobs = [(row, seed) for seed in range(config.seeds) for row in rows if str(seed) not in kept.found.get(row, {})]
    bench, learned = None, {}
    for i, (row, seed) in enumerate(jobs):
        show(i, len(jobs))
        bench = bench or Bench(config, gan, judge, truth(config))
        if seed not in learned:
            learned = {seed: kept.models(seed, lambda seed=seed, bench=bench: bench.mle(seed))}
        kept.add(row, seed, _one(bench, row, seed, learned[seed]), bench.truth.entropy)
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


def _one(bench: Bench, row: str, seed: int, learned: dict[str, tuple[dict, int]]) -> dict:
    params, epoch = learned["mle_published" if row == "mle_published" else "mle"]
    if row not in ROWS:
        return bench.measured(params, seed, _temperature(row) or 1.0) | {"epoch": epoch}
    tuned, noticed = bench.tuned(row, seed, params)
    return bench.measured(tuned, seed) | noticed


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

    @classmethod
    def open(cls, folder: str, options: dict) -> Kept:
        """Raises UserError when the folder's figures came of other options."""
        options = {name: value for name, value in options.items() if name not in FREE}
        made = cls(pathlib.Path(folder) if folder else None, options, {})
        if not made.folder or not made.file.exists():
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
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"options": self.options, "entropy": entropy, "found": self.found}, indent=1)
            replace_text(self.file, text + "\n")

    def models(self, seed: int, learn: Callable[[], dict[str, tuple[dict, int]]]) -> dict[str, tuple[dict, int]]:
        """The generators of maximum likelihood with their epochs: the folder's, or learned and kept there."""
        if not self.folder:
            return learn()
        path = self.folder / f"mle-{seed}.safetensors"
        if path.exists():
            stored = trees.nested(load_file(path).items())
            return {name: (params, int(params.pop("epoch")[0])) for name, params in stored.items()}
        found = learn()
        arrays = {name: {**params, "epoch": np.full(1, epoch, np.int32)} for name, (params, epoch) in found.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({name: np.asarray(value) for name, value in trees.flat(arrays)}, f"{path}.tmp")
        pathlib.Path(f"{path}.tmp").replace(path)
        return found
