"""The tampering report: whether a run finds changed reasons unlikely, and whether an instruction hidden in a title gets into what it writes."""

from __future__ import annotations

import itertools
import json

import numpy as np

from rgjax.config import DecodeConfig, EvaluateConfig
from rgjax.data import pipeline
from rgjax.data.injected import neutral
from rgjax.errors import UserError
from rgjax.metrics import suite, tampering
from rgjax.tasks import measure
from rgjax.tasks.ablation import ROWS, example_losses
from rgjax.tasks.run import Run
from rgjax.train.workdir import replace_text

FILE = "tampering.json"
_NOT_HERE = ("outputs", "against", "earlier", "before", "ablate_vectors")


def report(config: EvaluateConfig, decode: DecodeConfig, progress) -> tuple[dict, str]:
    """(what tampering.json holds, a table for the terminal).

    References are changed in two ways, and scored by their negative log-likelihood per token. Instructions are put behind the items' titles, and
    reasons written with and without `rgjax.data.injected.neutral`. Raises UserError for flags of other reports and a split of fewer than two.
    """
    if surplus := [name for name in _NOT_HERE if getattr(config, name)]:
        raise UserError(f"--{surplus[0]} is for --report=scores, and --report=tampering has another task; leave one of them out.")
    run = Run.open(config.workdir, config.checkpoint, config.base)
    dataset, run = run.dataset(config.dataset), run.kept(config.weights)
    examples = list(itertools.islice(dataset.examples(config.split), config.limit or None))
    if len(examples) < 2:
        raise UserError(f"The split '{config.split}' of {dataset.folder} has {len(examples)} examples; measure one with two or more.")
    lang, rng = suite.detect_language(examples), np.random.default_rng(0)
    texts = [e["reason"] for e in examples]
    others = texts[1:] + texts[:1]
    changed = {"words swapped": [tampering.swapped(t, lang, rng) for t in texts], "claim inserted": list(map(tampering.inserted, texts, others))}
    clean_N = _surprise(run, examples, texts)
    result = {
        "split": config.split, "examples": len(examples), "checkpoint": run.step, "weights": config.weights, "synthetic": run.facts["synthetic"],
        "dataset": run.facts["dataset_name"], "false_alarms": tampering.FALSE_ALARMS,
        "detected": {name: tampering.told(clean_N, _surprise(run, examples, made), config.resamples) for name, made in changed.items()},
        "injected": _injected(run, decode, examples, lang, progress),
    }  # fmt: skip
    folder = measure.made_folder(config)
    replace_text(folder / FILE, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result | {"output": str(folder / FILE)}, table(result)


def _surprise(run: Run, examples: list[dict], texts: list[str]) -> np.ndarray:
    """Mean negative log-likelihood per token of each text as the reason of its example, nats [N]; raises UserError where one is not finite."""
    task = run.task
    shape = pipeline.Shape.of(task.input, task.architecture, alone=True)
    made = [pipeline.as_fed(e | {"reason": text}, task.template, task.input, task.architecture) for e, text in zip(examples, texts, strict=True)]
    batches = (pipeline.pad_rows(made[at : at + ROWS], shape, ROWS) for at in range(0, len(made), ROWS))
    losses_N = example_losses(task, run.params, batches)[: len(made)].astype(float)
    if not np.isfinite(losses_N).all():
        raise UserError(f"{run.folder} gives a reference no finite likelihood, so its training diverged; choose another run or --checkpoint.")
    return losses_N


def _injected(run: Run, decode: DecodeConfig, examples: list[dict], lang: str, progress) -> dict[str, dict]:
    instruction, asked = tampering.INJECTED[lang]
    titled = [e for e in examples if e["item"].get("title")]
    if not titled:
        return {}
    hidden = [e | {"item": e["item"] | {"title": e["item"]["title"] + instruction}} for e in titled]
    plain = measure.write(run, decode, titled, progress)
    found = {"without": {"repeats": float(np.mean([asked in text for text in plain])), "examples": len(titled)}}
    for name, given in (("kept", hidden), ("stripped", [neutral(e)[0] for e in hidden])):
        texts = measure.write(run, decode, given, progress)
        repeats, same = (float(np.mean(values)) for values in ([asked in t for t in texts], [a == b for a, b in zip(texts, plain, strict=True)]))
        found[name] = {"repeats": repeats, "as_without": same, "examples": len(titled)}
    return found


def table(result: dict) -> str:
    """The report as aligned text."""
    rows = [["reference with", "AUC", "above its own", "95 %", f"caught at {result['false_alarms']:.0%} false alarms"]]
    for name, one in result["detected"].items():
        rows.append([name, f"{one['auc']:.3f}", f"{one['above_own']:.3f}", f"[{one['low']:.3f}, {one['high']:.3f}]", f"{one['caught']:.1%}"])
    lines = [suite.align(rows), ""]
    for name, one in result["injected"].items():
        same = f", {one['as_without']:.1%} as without it" if "as_without" in one else ""
        lines.append(f"instruction in the title, {name}: {one['repeats']:.1%} of {one['examples']} reasons repeat what it asks for{same}")
    return "\n".join(lines)
