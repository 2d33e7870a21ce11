"""The picture of a control report: what was asked for against what was judged, and each column beside the model without codes."""

from __future__ import annotations

import pathlib
from html import escape

from rgjax.metrics.control import MET, shown, span
from rgjax.report import charts
from rgjax.report.style import CSS

CELL, LEFT, TOP = 46, 120, 26
_WITHOUT, _REFERENCES, _JUDGE = "#c2410c", "#14713d", "#c2410c"
_SHARES = ("distinct_1", "distinct_2", "distinct_3", "planned_length", "required_words")
_MOST = {"self_bleu": 100.0} | dict.fromkeys(_SHARES, 1.0)  # where the scale of a column ends, else at the largest shown
_MORE = ".two { display: flex; flex-wrap: wrap; gap: 26px; align-items: flex-start; } .two svg { max-width: none; }"


def write(result: dict) -> str:
    """Writes control.html beside the control.json of a report (`tasks.control.report`); returns its path."""
    path = pathlib.Path(result["output"]).with_suffix(".html")
    path.write_text(page(result), encoding="utf-8")
    return str(path)


def page(result: dict) -> str:
    """The whole HTML document."""
    what = f"{escape(result['dataset'])}, {result['examples']} inputs of {result['split']}, {result['method']}, guidance {result['guidance']:g}"
    body = [f'<h1>Control</h1><p class="about soft">{what}; the judge learned from {result["judge_split"]}</p>']
    body += ['<p class="synthetic"><b>Synthetic data.</b></p>'] if result["synthetic"] else []
    body += [_code(name, code, result) for name, code in result["codes"].items()]
    body.append(_aims(result["aims"]))
    head = f'<head><meta charset="utf-8"><title>Control</title><style>{CSS}{_MORE}</style></head>'
    return f'<!doctype html>\n<html lang="en">{head}<body>{"".join(body)}</body></html>\n'


def _code(name: str, code: dict, result: dict) -> str:
    judge = code["judge"]
    told = f"judge: {escape(judge['how'])}"
    if "accuracy" in judge:
        told += f", right on {shown(judge['accuracy'], '.1%')} of {judge['held_out']} references"
    told += f"; judged as asked: {shown(code['compliance'], '.1%')} {span(code['compliance_95'], '.1%')}"
    rows = [*zip(code["labels"], code["confusion"], strict=True), ("no code", code["uncontrolled_judged"])]
    head = "".join(f"<th>{escape(c)}</th>" for c in ("value", "judged so, 95 %", *result["columns"]))
    body = "".join(_row(value, row, judge.get("recall", {}).get(value), result) for value, row in code["values"].items())
    key = f'<p class="soft">ticks: <b style="color:{_WITHOUT}">without codes (or the judge on references)</b>, '
    key += f'<b style="color:{_REFERENCES}">references</b></p>'
    table = f'<div class="wide"><table class="scores"><tr>{head}</tr>{body}</table>{key}</div>'
    return f'<h2>{escape(name)}</h2><p class="soft">{told}</p><div class="two">{heat(code["labels"], rows)}{table}</div>'


def _row(value: str, row: dict, judged: float | None, result: dict) -> str:
    low, high = row["compliance_95"]
    score, marks = {"value": row["compliance"], "low": low, "high": high}, [("the judge on references", _JUDGE, judged)]
    told = f"{shown(row['compliance'], '.1%')} {span(row['compliance_95'], '.1%')}"
    cells = f"<td>{escape(value)}</td><td>{charts.bar(score, marks, width=90, most=1.0)}{told}</td>"
    for column in result["columns"]:
        marks = [("without codes", _WITHOUT, result["uncontrolled"][column]), ("references", _REFERENCES, result["references"][column])]
        cells += f"<td>{charts.bar({'value': row[column]}, marks, width=90, most=_MOST.get(column))}{shown(row[column], '.3g')}</td>"
    return f"<tr>{cells}</tr>"


def heat(labels: list[str], rows: list[tuple[str, list[int]]]) -> str:
    """A matrix of counts as SVG, each row shaded by its shares; one column per label, one row per (name, counts)."""
    width, height = LEFT + CELL * len(labels) + 4, TOP + CELL * len(rows) + 4
    parts = [f'<text x="{LEFT + CELL * (i + 0.5)}" y="{TOP - 8}" text-anchor="middle">{escape(label)}</text>' for i, label in enumerate(labels)]
    for r, (name, counts) in enumerate(rows):
        y, total = TOP + CELL * r, sum(counts) or 1
        parts.append(f'<text x="{LEFT - 8}" y="{y + CELL / 2 + 4}" text-anchor="end">{escape(name)}</text>')
        for c, count in enumerate(counts):
            x, share = LEFT + CELL * c, count / total
            tip = f"<title>asked {escape(name)}, judged {escape(labels[c])}: {count} of {sum(counts)}</title>"
            ink = "#fff" if share > 0.5 else "#1d2530"
            size = f'x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}"'
            parts.append(f'<rect {size} fill="#2563c9" fill-opacity="{share:.3f}" stroke="#e4e7ec">{tip}</rect>')
            middle = f'x="{x + CELL / 2 - 1}" y="{y + CELL / 2 + 4}" text-anchor="middle"'
            parts.append(f'<text {middle} style="fill:{ink}">{count}</text>')
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="asked against judged">{"".join(parts)}</svg>'


def _aims(aims: list[dict]) -> str:
    rows = "".join(
        f"<tr><td>{MET[aim['met']]}</td><td>{escape(aim['what'])}</td><td>{shown(aim['value'], '.3f')}</td>"
        f"<td>{span(aim['interval_95'], '.3f')}</td><td>{escape(aim['aim'])}</td></tr>"
        for aim in aims
    )
    return f"<h2>Aims</h2><table><tr><th></th><th>what</th><th>value</th><th>95 %</th><th>aim</th></tr>{rows}</table>"
