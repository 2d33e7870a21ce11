"""What a workdir holds, read into one value for the page."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from typing import Any

from rgjax.errors import UserError

SHOWN_OUTPUTS = 20
SHOWN_SAMPLES = 400  # latest lines of samples.jsonl kept


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's files; what is not there yet is empty.

    config: config.json. metrics: rows of metrics.jsonl. evaluation: evaluation.json. samples: latest rows of samples.jsonl.
    outputs: first rows of outputs.jsonl.
    """

    workdir: pathlib.Path
    config: dict
    metrics: list[dict]
    evaluation: dict
    samples: list[dict]
    outputs: list[dict]

    @property
    def synthetic(self) -> bool:
        """Whether the data was made by a program."""
        return bool(self.config.get("synthetic") or self.evaluation.get("synthetic"))


def read(workdir: str | pathlib.Path) -> Run:
    """Reads `workdir`; raises UserError when it holds no run, nothing was logged yet, or a file is damaged."""
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise UserError(f"--workdir={workdir} is no folder; give the folder of a launch.train run.")
    config = _object(folder / "config.json")
    if not config:
        raise UserError(f"{workdir} holds no run (no config.json); give the --workdir of a launch.train run.")
    metrics = _rows(folder / "metrics.jsonl")
    if not metrics:
        raise UserError(f"{folder / 'metrics.jsonl'} is missing or empty; train a few steps first.")
    samples, outputs = _rows(folder / "samples.jsonl"), _rows(folder / "outputs.jsonl", most=SHOWN_OUTPUTS)
    return Run(folder, config, metrics, _object(folder / "evaluation.json"), samples[-SHOWN_SAMPLES:], outputs)


def _object(path: pathlib.Path) -> dict:
    """The JSON object in a file; empty when there is no file."""
    if not path.exists():
        return {}
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged (not one JSON object); write it again or remove it.") from None


def _rows(path: pathlib.Path, most: int | None = None) -> list[dict]:
    """The first `most` objects of a JSON lines file; a half-written last line of a running job is skipped."""
    if not path.exists():
        return []
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(itertools.islice(file, most), 1):
            try:
                rows.append(_checked(json.loads(line)))
            except (ValueError, UnicodeDecodeError):
                if line.endswith(b"\n"):
                    raise UserError(f"{path}, line {number}, is no JSON object; remove that line or the file.") from None
    return rows


def _checked(value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError
    return value
