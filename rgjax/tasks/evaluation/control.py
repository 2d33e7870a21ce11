"""The control report: what a run writes when each declared code is asked for, judged by a classifier that had no part in its training."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from rgjax.config import NO_REWARDS, DecodeConfig, EvaluateConfig, RewardConfig
from rgjax.data import length_bands
from rgjax.data.dataset import Dataset
from rgjax.data.words import missing
from rgjax.decode.rules import length_of, required_words
from rgjax.errors import UserError
from rgjax.metrics import control, features, suite
from rgjax.metrics.control import MET, shown, span
from rgjax.metrics.outside import Ngrams
from rgjax.tasks import judges
from rgjax.tasks.evaluation import measure
from rgjax.tasks.rewards import choosing
from rgjax.tasks.run import Run, reads_bare
from rgjax.train.workdir import replace_text

FILE = "control.json"
AIMS = {  # of the anchors in the literature: CTRL's level for codes, Diffusion-LM's for lengths
    "compliance": ("at least", 0.88), "least_class": ("at least", 0.80), "perplexity_ratio": ("at most", 1.2),
    "distinct_2_ratio": ("at least", 0.95), "length": ("at least", 0.98),
}  # fmt: skip
KEPT = {  # columns where every text is told to keep something
    "planned_length": "texts whose length is the planned one, give or take the tolerance, 0..1",
    "required_words": "required words that stand in the texts, 0..1",
}
_NOT_HERE = ("outputs", "against", "earlier", "before", "ablate_vectors")


@dataclasses.dataclass
class Code:
    """A code that is asked for: the values that can be judged, those that can't, and who judges."""

    name: str
    values: list[str]
    left_out: list[str]
    judge: Callable[[Sequence[str]], list[str]]
    how: dict


def report(config: EvaluateConfig, decode: DecodeConfig, progress, reward: RewardConfig = NO_REWARDS) -> tuple[dict, str]:
    """(what control.json holds, a table for the terminal).

    Raises UserError for a run without codes, a split that teaches the judge and is measured too, one that is empty, and flags of other reports.
    """
    if surplus := [name for name in _NOT_HERE if getattr(config, name)]:
        raise UserError(f"--{surplus[0]} is for --report=scores, and --report=control has another task; leave one of them out.")
    if config.split == config.judge_split:
        raise UserError(f"--judge_split={config.judge_split} would judge what it learned from; give another than --split={config.split}.")
    run = Run.open(config.workdir, config.checkpoint, config.base)
    if not run.controls:
        raise UserError(f"{config.workdir} was trained without control codes, so there is nothing to ask for; prepare data with --controls.")
    dataset, run = run.dataset(config.dataset), run.kept(config.weights)
    judges.check(dataset, config.judge_split)
    run = choosing(run, decode.method, reward, config.dataset)
    most = max(config.limit, judges.TRAIN_LIMIT) if config.limit else None
    held_out = list(itertools.islice(dataset.examples(config.split), most))
    learned = judges.references(dataset, config.judge_split, judges.FOR_REPORTS)
    for split, examples in ((config.split, held_out), (config.judge_split, learned)):
        if not examples:
            raise UserError(f"The split '{split}' of {dataset.folder} is empty; choose others with --split and --judge_split.")
    codes = _codes(dataset, run.controls, learned, held_out)
    asked = held_out[: config.limit or None]
    texts = _written(run, decode, codes, asked, progress)
    cut = features.tokenizer(suite.detect_language(held_out))
    outside = Ngrams.fit([cut(e["reason"]) for e in learned])
    kept = _kept(run, decode)
    shares = lambda found: {name: statistics.fmean(map(of, asked, found)) for name, of in kept.items()}
    describe = lambda found: control.described([cut(text) for text in found], outside) | shares(found)
    result = {
        "split": config.split, "judge_split": config.judge_split, "examples": len(asked), "checkpoint": run.step, "weights": config.weights,
        "synthetic": run.facts["synthetic"], "dataset": run.facts["dataset_name"], "method": decode.method, "guidance": decode.guidance,
        "reads_bare": reads_bare(run.facts), "columns": control.COLUMNS | {name: KEPT[name] for name in kept},
        "uncontrolled": describe(texts["", ""]), "references": describe([e["reason"] for e in asked]),
    }  # fmt: skip
    result |= {"rewards": reward.rewards, "candidates": decode.candidates} if decode.method == "best" else {}
    result |= {name: getattr(decode, name) for name in ("code_words", "code_pull", "code_mentions")} if decode.code_words else {}
    result["not_judged"] = [name for name in run.controls if name not in {code.name for code in codes}]
    result["codes"] = {code.name: _code(code, texts, describe, result["uncontrolled"], config.resamples) for code in codes}
    result |= _summary(decode, [shares(found) for found in texts.values()])
    result["aims"] = _aims(result)
    folder = measure.made_folder(config)
    replace_text(folder / FILE, json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return result | {"output": str(folder / FILE)}, table(result)


def _codes(dataset: Dataset, declared: dict[str, list[str]], learned: list[dict], held_out: list[dict]) -> list[Code]:
    measured, codes = judges.bands(dataset), []
    for name, values in declared.items():
        if name == length_bands.NAME and measured:
            codes.append(Code(name, values, [], judges.of_bands(measured), {"how": f"{length_bands.NAME}, measured"}))
            continue
        if not (found := judges.learn(name, values, learned)):
            continue
        own = [(e["reason"], e["control"][name]) for e in held_out if e["control"].get(name) in found.values]
        right = control.agreement([label for _, label in own], found.judge.judge([text for text, _ in own]), found.values)
        how = {"how": "classifier of words", "learned_from": found.texts, "held_out": len(own), "accuracy": right["share"], "recall": right["recall"]}
        codes.append(Code(name, found.values, [value for value in values if value not in found.values], found.judge.judge, how))
    if not codes:
        least = judges.LEAST_TEXTS
        raise UserError(f"No control code has two values with {least} references each in half of the judge's split; give another --judge_split.")
    return codes


def _written(run: Run, decode: DecodeConfig, codes: list[Code], asked: list[dict], progress) -> dict[tuple[str, str], list[str]]:
    """(code, value) -> a text for each input, with that value in place of its own; ("", "") without any code."""
    wanted = [("", ""), *((code.name, value) for code in codes for value in code.values)]
    forced = [e | {"control": {**e["control"], name: value} if name else {}} for name, value in wanted for e in asked]
    texts = iter(measure.write(run, decode, forced, progress))
    return {what: list(itertools.islice(texts, len(asked))) for what in wanted}


def _code(code: Code, texts: dict, describe, uncontrolled: dict, resamples: int) -> dict:
    labels = [value for value in code.values for _ in texts[code.name, value]]
    written = [text for value in code.values for text in texts[code.name, value]]
    judged = code.judge(written)
    found, sure = control.agreement(labels, judged, code.values), control.intervals(judged, code.values, resamples)
    of = lambda value: {"compliance": found["recall"][value], "compliance_95": sure[value]}
    values = {value: of(value) | describe(texts[code.name, value]) for value in code.values}
    least, plain = min(code.values, key=found["recall"].get), Counter(code.judge(texts["", ""]))
    return {
        "compliance": found["share"], "compliance_95": sure[""], "least_class": found["recall"][least], "least_class_95": sure[least],
        "perplexity_ratio": _ratio(values, uncontrolled, "perplexity"), "distinct_2_ratio": _ratio(values, uncontrolled, "distinct_2"),
        "judge": code.how, "labels": code.values, "left_out": code.left_out, "confusion": found["confusion"],
        "uncontrolled_judged": [plain[value] for value in code.values], "values": values,
    }  # fmt: skip


def _ratio(values: dict[str, dict], uncontrolled: dict, column: str) -> float | None:
    """The mean of a column over the values where it is defined, over that without codes; None where either is undefined."""
    known = [row[column] for row in values.values() if row[column] is not None]
    return statistics.fmean(known) / uncontrolled[column] if known and uncontrolled[column] else None


def _kept(run: Run, decode: DecodeConfig) -> dict[str, Callable[[dict, str], float]]:
    """How much an example's text keeps of what every text was told to keep, 0..1, by column: its length, counted on what is shown (a slot as one
    token, as it was written), and its words."""
    words, found = required_words(decode), {}
    if decode.plan_length:
        tokens = lambda example, text: len(run.task.template.render(example | {"reason": text}).target_ids) - 1
        size = tokens if decode.length_unit == "tokens" else lambda _, text: length_of(text, decode.length_unit)
        found["planned_length"] = lambda example, text: float(abs(size(example, text) - decode.plan_length) <= decode.plan_tolerance)
    if words:
        found["required_words"] = lambda _, text: 1 - len(missing(text, words)) / len(words)
    return found


def _summary(decode: DecodeConfig, parts: list[dict[str, float]]) -> dict:
    """The shares over all texts, with what was asked for; `parts` are those of as many texts each."""
    shares = {name: statistics.fmean(part[name] for part in parts) for name in parts[0]}
    plan = {"planned": decode.plan_length, "tolerance": decode.plan_tolerance, "unit": decode.length_unit}
    found = {"length": plan | {"share": shares["planned_length"]}} if "planned_length" in shares else {}
    return found | ({"required_words": {"words": required_words(decode), "share": shares["required_words"]}} if "required_words" in shares else {})


def _aims(result: dict) -> list[dict]:
    """[{"what", "value", "interval_95", "aim", "met"}] of every code, and of the planned length; an undefined value (None) is neither met nor not.

    A class that is the least has the interval of that class; ratios and lengths have none.
    """
    named = [(name, key, code[key], code.get(f"{key}_95")) for name, code in result["codes"].items() for key in AIMS if key in code]
    named += [("", "length", result["length"]["share"], None)] if "length" in result else []
    found = []
    for name, key, value, sure in named:
        bound, aim = AIMS[key]
        met = None if value is None else value >= aim if bound == "at least" else value <= aim
        found.append({"what": f"{name} {key}".strip(), "value": value, "interval_95": sure, "aim": f"{bound} {aim:g}", "met": met})
    return found


def table(result: dict) -> str:
    """The report as aligned text: without codes, the references, and each value of each code; then what the aims say."""
    columns = list(result["columns"])
    cells = lambda row: [shown(row[c], ".1%" if c in KEPT else ".3f" if c.startswith("distinct") else ".1f") for c in columns]
    rows = [["asked for", "texts", "judged so", "95 %", "judge", *columns]]
    for name in ("uncontrolled", "references"):
        rows.append([name, str(result[name]["texts"]), "-", "-", "-", *cells(result[name])])
    for name, code in result["codes"].items():
        recall = code["judge"].get("recall", {})
        for value, row in code["values"].items():
            rows.append([f"{name}={value}", str(row["texts"]), *_judged(row), shown(recall.get(value), ".1%"), *cells(row)])
        rows.append([f"{name}, all", "", *_judged(code), shown(code["judge"].get("accuracy"), ".1%"), *[""] * len(columns)])
    lines = [suite.align(rows), ""]
    for aim in result["aims"]:
        sure = f" {span(aim['interval_95'], '.3f')}" if aim["interval_95"] else ""
        lines.append(f"{MET[aim['met']]:<5} {aim['what']}: {shown(aim['value'], '.3f')}{sure}, aim {aim['aim']}")
    if "required_words" in result:
        lines.append(f"required words that stand in the texts: {result['required_words']['share']:.1%}")
    lines += [f"not asked for, too few references: {n}={', '.join(c['left_out'])}" for n, c in result["codes"].items() if c["left_out"]]
    lines += [f"not asked for, too few references of two values: {name}" for name in result["not_judged"]]
    if not result["reads_bare"]:
        lines.append("the run had no --control_dropout: it never learned to write without codes, so 'uncontrolled' is no fair comparison")
    return "\n".join(lines)


def _judged(row: dict) -> list[str]:
    return [shown(row["compliance"], ".1%"), span(row["compliance_95"], ".1%")]
