"""The evaluation as tables: each score beside its floors and interval, and the paired comparison of two systems."""

from __future__ import annotations

from html import escape

from rgjax.metrics.definitions import definitions, needs_reference
from rgjax.report import charts

COLOURS = {"random": "#8a93a3", "template": "#d97706", "retrieval": "#9333ea", "reference": "#14713d"}
RANKED = ("hr@", "ndcg@", "mrr@", "coverage@", "gini@", "novelty@")
_OTHER = "#0f766e"


def section(evaluation: dict) -> str:
    """The "Scores" section; an evaluation without a "system" (none yet) says how to make one."""
    if isinstance(about := evaluation.get("about"), dict):
        facts = ", ".join(f"{name} {about[name]}" for name in ("split", "hold_out", "asked", "ranking") if name in about)
        intro = f'<p class="soft">{escape(facts)}. Point at a number to read its 95 % interval.</p>'
        return _section(intro + _ranking({name: one for name, one in evaluation.items() if name != "about"}, about))
    if not evaluation.get("system"):
        return _section(
            '<p class="soft">Not measured yet: <code>python -m launch.evaluate --workdir=W</code> and make the page again.</p>'
        )
    facts = [f"{name} {evaluation[name]}" for name in ("split", "checkpoint") if evaluation.get(name)]
    parts = "".join(_part(part, facts) for part in [evaluation, *(evaluation.get("others") or [])])
    return _section(f'{parts}{_paired(evaluation.get("paired") or {})}')


def _part(scores: dict, facts: list[str]) -> str:
    """The table of the examples in one language."""
    floors = scores.get("floors") or {}
    facts = facts + ([f"language {scores['language']}"] if scores.get("language") else [])
    facts += [f"{scores['examples']} examples"] if scores.get("examples") else []
    note = "Intervals are 95 %. Green: overlap whose interval lies above every floor. Point at a metric to read its definition."
    head = "".join(f'<th class="n"><i style="background:{_colour(name)}"></i>{escape(name)}</th>' for name in floors)
    rows = "".join(_row(name, score, floors) for name, score in scores["system"].items())
    table = (
        f'<table class="scores"><tr><th>metric</th><th class="n">system</th><th>interval</th>{head}<th></th></tr>{rows}</table>'
    )
    intro = f'<p class="soft">{escape(", ".join(map(str, facts)))}. {note}</p>' if facts else f'<p class="soft">{note}</p>'
    return f'{intro}<div class="wide">{table}</div>'


def _ranking(part: dict, about: dict, title: str = "") -> str:
    """The tables of recommenders in a part of an evaluation: its own, then those of its parts under their names."""
    rows = {name: one for name, one in part.items() if isinstance(one, dict) and all(map(_is_score, one.values()))}
    facts = ", ".join(f"{name} {value}" for name, value in part.items() if not isinstance(value, dict))
    head = (f"<h3>{escape(title)}</h3>" if title else "") + (f'<p class="soft">{escape(facts)}</p>' if facts else "")
    inner = {name: one for name, one in part.items() if isinstance(one, dict) and name not in rows}
    return head + _table(rows, about) + "".join(_ranking(one, about, f"{title}, {name}" if title else name) for name, one in inner.items())


def _is_score(value: object) -> bool:
    return "value" in value if isinstance(value, dict) else True


def _table(models: dict, about: dict) -> str:
    """One recommender a row; intervals and definitions come up where one points. Nothing without figures."""
    known = list(dict.fromkeys(name for scores in models.values() for name in scores))
    names = [n for n in known if n.startswith(RANKED)] or known
    if not names:
        return ""
    said = about.get("definitions") or {}
    head = "".join(f'<th class="n" title="{escape(said.get(n, ""), quote=True)}">{escape(n)}</th>' for n in names)
    show = lambda value: "–" if value is None else f"{value:.4f}" if isinstance(value, float) else escape(str(value))
    within = lambda score: f"{show(score['low'])} to {show(score['high'])}" if score.get("low") is not None else ""
    cell = lambda score: f'<td class="n" title="{within(score)}">{show(score.get("value"))}</td>'
    of = lambda score: score if isinstance(score, dict) else {"value": score}
    rows = "".join(f"<tr><td>{escape(model)}</td>{''.join(cell(of(scores.get(name))) for name in names)}</tr>" for model, scores in models.items())
    return f'<div class="wide"><table class="scores"><tr><th></th>{head}</tr>{rows}</table></div>'


def _section(body: str) -> str:
    return f'<section id="scores"><h2>Scores</h2>{body}</section>'


def _colour(floor: str) -> str:
    return COLOURS.get(floor, _OTHER)


def _row(name: str, score: dict, floors: dict) -> str:
    values = {floor: (scores.get(name) or {}).get("value") for floor, scores in floors.items()}
    known = [value for value in values.values() if value is not None]
    low = score.get("low")
    ahead = needs_reference(name) and low is not None and bool(known) and low > max(known)
    marks = [(floor, _colour(floor), value) for floor, value in values.items() if value is not None]
    cells = "".join(f'<td class="n">{_number(name, value)}</td>' for value in values.values())
    own = f'<td class="n{" ahead" if ahead else ""}">{_number(name, score.get("value"))}</td>'
    title = escape(definitions().get(name, ""), quote=True)
    head = f'<td title="{title}">{escape(name)}</td>{own}<td class="soft">{_interval(name, score)}</td>'
    return f"<tr>{head}{cells}<td>{charts.bar(score, marks)}</td></tr>"


def _paired(paired: dict) -> str:
    """Two systems on the same examples, as `suite.paired` returns them."""
    if not paired:
        return ""
    rows = []
    for name, score in paired.items():
        numbers = "".join(f'<td class="n">{_number(name, score.get(key))}</td>' for key in ("a", "b", "difference"))
        head = f'<td>{escape(name)}</td>{numbers}<td class="soft">{_interval(name, score)}</td>'
        rows.append(f'<tr>{head}<td class="n">{_p(score.get("p"))}</td></tr>')
    names = "".join(f'<th class="n">{name}</th>' for name in ("a (this run)", "b", "a - b"))
    table = f'<tr><th>metric</th>{names}<th>interval</th><th class="n">p</th></tr>{"".join(rows)}'
    return f'<h3>Beside another system (paired bootstrap)</h3><div class="wide"><table class="scores">{table}</table></div>'


def _p(p: float | None) -> str:
    return "" if p is None else "&lt;0.001" if p < 0.001 else f"{p:.3f}"


def _number(name: str, value: float | None) -> str:
    """Two decimals for scores x100, four for the others."""
    return "–" if value is None else f"{value:.{2 if 'x100' in definitions().get(name, 'x100') else 4}f}"


def _interval(name: str, score: dict) -> str:
    return "" if score.get("low") is None else f"{_number(name, score['low'])} to {_number(name, score['high'])}"
