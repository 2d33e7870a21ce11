"""Every metric of a set of written reasons, beside floors, with 95 % intervals.

An example is a plain dict of the JSON lines format; outputs are the reasons written for them, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from rgjax.errors import UserError
from rgjax.metrics import bootstrap, diversity, features, fields, floors, grounding, language, overlap
from rgjax.metrics.bootstrap import Metric
from rgjax.metrics.definitions import definitions, needs_reference

__all__ = ["align", "definitions", "detect_language", "evaluate_reasons", "measure", "paired", "table", "with_floors"]


LANGUAGES = {"en": "English", "zh": "Chinese"}
OWN_TABLE = 5  # examples in each of two languages from which on they are scored apart


def detect_language(examples: Sequence[dict]) -> str:
    """'zh' or 'en': the language of most examples."""
    return language.majority(map(_language, examples))


def _language(example: dict) -> str:
    """That of the reference reason; without one, of the titles and attribute values."""
    item = example.get("item") or {}
    named = [fields.item_title(example), *fields.values(item), *fields.history_titles(example)]
    return language.detect([fields.reason(example)] if fields.reason(example) else named)


def measure(examples: Sequence[dict], outputs: Sequence[str], *, max_words: int, lang: str = "") -> dict[str, Metric]:
    """Every metric that the examples can show, still resamplable; `lang` empty detects it.

    Raises UserError when there are no examples, when outputs and examples differ in number, or when only some examples have a
    reference (with none at all, the metrics that compare with references are left out).
    """
    if not examples:
        raise UserError("There is nothing to measure: the split or the outputs file holds no examples.")
    if len(outputs) != len(examples):
        raise UserError(f"There are {len(outputs)} outputs for {len(examples)} examples; give one reason per example, in order.")
    references = [fields.reason(e) for e in examples]
    if any(references) and not all(references):
        raise UserError(f"Example {references.index('') + 1} has no reference reason, others have; give all of them one or none.")
    lang = lang or detect_language(examples)
    tokens = [features.tokenizer(lang)(text) for text in outputs]
    found = overlap.metrics(outputs, references, lang) if any(references) else {}
    found |= grounding.metrics(examples, outputs, lang, max_words)
    found |= {f"distinct_{n}": diversity.distinct(tokens, n) for n in (1, 2)}
    found |= {"usr": diversity.unique_sentence_ratio(outputs), "self_repetition": diversity.self_repetition(tokens)}
    named = features.metrics(examples, outputs, lang)
    return found | (named if any(references) else {k: v for k, v in named.items() if not needs_reference(k)})


def evaluate_reasons(
    examples: Sequence[dict], outputs: Sequence[str], *, max_words: int, resamples: int, seed: int = 0, lang: str = ""
) -> dict[str, dict]:
    """Metric name -> {"value", "low", "high"}; see `definitions` for units, `measure` for the errors raised."""
    return bootstrap.intervals(measure(examples, outputs, max_words=max_words, lang=lang), resamples, seed)


def with_floors(
    examples: Sequence[dict],
    outputs: Sequence[str],
    train_examples: Sequence[dict],
    *,
    max_words: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, dict]:
    """{"system": metrics, "floors": {"random", "template", "retrieval", "reference": metrics}, "language", "examples"}.

    "reference" scores the references themselves on the metrics that do not compare with a reference: a ceiling for grounding and
    diversity. A corpus in two languages, each with at least `OWN_TABLE` examples, is scored in two parts, as tokens differ: the
    larger one stands at the top, "others" is a list with the like of it for the other; each has its own training examples as
    floors. Raises UserError as `measure` does, and when the train set is empty.
    """
    options = dict(max_words=max_words, resamples=resamples, seed=seed)
    languages = [_language(e) for e in examples]
    most = language.majority(languages)
    if len(outputs) != len(examples) or min(languages.count("en"), languages.count("zh")) < OWN_TABLE:
        return _beside_floors(examples, outputs, train_examples, most, options)
    train_languages, parts = [_language(e) for e in train_examples], []
    for lang in sorted({"en", "zh"}, key=lambda name: name != most):
        members = [i for i, found in enumerate(languages) if found == lang]
        train = [e for e, found in zip(train_examples, train_languages, strict=True) if found == lang] or train_examples
        own = [examples[i] for i in members], [outputs[i] for i in members]
        parts.append(_beside_floors(*own, train, lang, options))
    return parts[0] | {"others": parts[1:]}


def _beside_floors(examples, outputs, train_examples, lang: str, options: dict) -> dict:
    written = {
        "random": floors.random_reasons(examples, train_examples, options["seed"]),
        "template": floors.template_reasons(examples, lang),
        "retrieval": floors.retrieved_reasons(examples, train_examples),
    }
    options = options | {"lang": lang}
    result = {"system": evaluate_reasons(examples, outputs, **options), "floors": {}}
    for name, texts in written.items():
        result["floors"][name] = evaluate_reasons(examples, texts, **options)
    if all(fields.reason(e) for e in examples):
        own = evaluate_reasons(examples, [fields.reason(e) for e in examples], **options)
        result["floors"]["reference"] = {name: score for name, score in own.items() if not needs_reference(name)}
    return result | {"language": lang, "examples": len(examples)}


def paired(
    examples: Sequence[dict],
    outputs_a: Sequence[str],
    outputs_b: Sequence[str],
    *,
    max_words: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, dict]:
    """Metric name -> {"a", "b", "difference", "low", "high", "p"} of two systems on the same examples (difference = a - b).

    All examples count together, with the tokens of the language that most are in.
    """
    lang = detect_language(examples)
    a = measure(examples, outputs_a, max_words=max_words, lang=lang)
    b = measure(examples, outputs_b, max_words=max_words, lang=lang)
    return bootstrap.paired(a, b, resamples, seed)


def table(results: dict) -> str:
    """What `evaluate_reasons`, `with_floors` or `paired` returned, as aligned text for a terminal.

    Parts in different languages come one after another, each under its language and its number of examples.
    """
    if results.get("others"):
        parts = [{key: value for key, value in results.items() if key != "others"}, *results["others"]]
        return "\n\n".join(f"{LANGUAGES[part['language']]}, {part['examples']} examples\n{table(part)}" for part in parts)
    if "system" in results:
        floors_by_name = results.get("floors") or {}
        rows = [["metric", "system", "95 % interval", *floors_by_name]]
        for name, score in results["system"].items():
            others = [_number(name, (floor.get(name) or {}).get("value")) for floor in floors_by_name.values()]
            rows.append([name, _number(name, score["value"]), _interval(name, score), *others])
        return align(rows)
    if any("p" in score for score in results.values()):
        rows = [["metric", "a", "b", "a - b", "95 % interval", "p"]]
        for name, score in results.items():
            numbers = [_number(name, score[key]) for key in ("a", "b", "difference")]
            rows.append([name, *numbers, _interval(name, score), _p(score["p"])])
        return align(rows)
    rows = [["metric", "value", "95 % interval"]]
    return align(rows + [[name, _number(name, score["value"]), _interval(name, score)] for name, score in results.items()])


def _number(name: str, value: float | None) -> str:
    """Two decimals for scores x100, four for the others."""
    decimals = 2 if "x100" in definitions().get(name, "") else 4
    return "-" if value is None else f"{value:.{decimals}f}"


def _p(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _interval(name: str, score: dict) -> str:
    return "-" if score["low"] is None else f"[{_number(name, score['low'])}, {_number(name, score['high'])}]"


def align(rows: list[list[str]]) -> str:
    """Rows of cells as aligned text, the first as its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=False))]) for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
