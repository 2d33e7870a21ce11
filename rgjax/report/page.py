"""The page: facts, curves, scores, reasons beside their inputs, configuration. Whatever comes from a file is escaped."""

from __future__ import annotations

import os
import pathlib
import statistics
from html import escape

from rgjax import config as config_lib
from rgjax.errors import UserError
from rgjax.report import charts, collect, reasons, scores
from rgjax.report.collect import Run
from rgjax.report.style import CSS
from rgjax.train.workdir import SECTIONS

_TRAIN, _VAL = "#2563c9", "#c2410c"
_SYNTHETIC = (
    '<p class="synthetic"><b>Synthetic data.</b> A program made these examples: the scores say that the software works, '
    "not how good its reasons are for people.</p>"
)


def write(workdir: str | pathlib.Path, output: str | pathlib.Path = "") -> dict:
    """Writes the page of a run and returns {"report", "bytes", "step", "examples"}.

    `output` empty writes report.html into the workdir. Raises UserError when the workdir lacks a run's files or the
    output's folder does not exist.
    """
    run = collect.read(workdir)
    path = pathlib.Path(output or run.workdir / "report.html")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--output={path} cannot be written; give a file in an existing folder.")
    text = render(run)
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
    return {"report": str(path), "bytes": path.stat().st_size, "step": _last_step(run), "examples": len(run.outputs)}


def render(run: Run) -> str:
    """The whole HTML document."""
    name = run.workdir.resolve().name
    body = [
        _head(run, name),
        _curves(run),
        scores.section(run.evaluation),
        reasons.outputs(run.outputs),
        reasons.samples(run.samples),
    ]
    body += [_config(run.config), f"<footer>rgjax report of {escape(str(run.workdir.resolve()))}</footer>"]
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{escape(name)} - rgjax</title><style>{CSS}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>{"".join(body)}</body></html>\n'


def _series(run: Run, key: str) -> list[tuple[float, float]]:
    rows = ((row.get("step"), row.get(key)) for row in run.metrics)
    return [(float(x), float(y)) for x, y in rows if _is_number(x) and _is_number(y)]


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _last_step(run: Run) -> int:
    return int(max((row["step"] for row in run.metrics if _is_number(row.get("step"))), default=0))


def _head(run: Run, name: str) -> str:
    wanted = (run.config.get("train") or {}).get("steps")
    facts = [("steps", f"{_last_step(run):,}" + (f" of {wanted:,}" if _is_number(wanted) else ""))]
    loss, val = _series(run, "loss"), _series(run, "val_loss")
    facts += [("last training loss", f"{loss[-1][1]:.4f}")] if loss else []
    if val:
        step, best = min(val, key=lambda point: point[1])
        facts.append((f"best validation loss, step {step:,.0f}", f"{best:.4f}"))
    speed = [y for _, y in _series(run, "target_tokens_per_second")[1:]]  # the first one compiles
    facts += [("target tokens/s (median)", f"{statistics.median(speed):,.0f}")] if speed else []
    mfu = [y for _, y in _series(run, "mfu")[1:]]
    facts += [("MFU (median)", f"{100 * statistics.median(mfu):.1f} %")] if mfu else []
    memory = [y for _, y in _series(run, "memory_bytes")]
    facts += [("peak memory", f"{max(memory) / 2**30:.2f} GiB")] if memory else []
    about = ", ".join(
        f"{label} {run.config[key]}" for label, key in (("task", "task"), ("dataset", "dataset_name")) if run.config.get(key)
    )
    cards = "".join(f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for label, value in facts)
    title = f'<h1>{escape(name)}</h1><p class="soft about">{escape(about)}</p>'
    return f'<header>{title}{_SYNTHETIC if run.synthetic else ""}<div class="facts">{cards}</div></header>'


def _curves(run: Run) -> str:
    drawn = [
        charts.lines(
            "Loss per target token", [("training", _TRAIN, _series(run, "loss")), ("validation", _VAL, _series(run, "val_loss"))]
        ),
        charts.lines("Target tokens per second", [("speed", _TRAIN, _series(run, "target_tokens_per_second"))], from_zero=True),
        charts.lines("Learning rate", [("learning rate", _TRAIN, _series(run, "learning_rate"))], from_zero=True),
        charts.lines("Gradient norm", [("gradient norm", _TRAIN, _series(run, "grad_norm"))], from_zero=True),
    ]
    return f'<section id="curves"><h2>Training</h2><div class="charts">{"".join(drawn)}</div></section>'


def _config(config: dict) -> str:
    """The configuration by section; what differs from the default is bold."""
    facts = {key: value for key, value in config.items() if not isinstance(value, dict)}
    sections = {"run": facts} | {key: value for key, value in config.items() if isinstance(value, dict)}
    blocks = []
    for name, values in sections.items():
        defaults = config_lib.to_json(SECTIONS[name]()) if name in SECTIONS else {}
        rows = "".join(
            f"<div{' class=set' if value != defaults.get(key, value) else ''}>"
            f"<span>{escape(str(key))}</span><span>{escape(str(value))}</span></div>"
            for key, value in values.items()
        )
        blocks.append(f'<details><summary>{escape(name)}</summary><div class="config">{rows}</div></details>')
    note = '<p class="soft">Bold: not the default.</p>'
    return f'<section id="config"><h2>Configuration</h2>{note}{"".join(blocks)}</section>'
