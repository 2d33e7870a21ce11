"""The tampering report: whether a run finds changed reasons surprising, and whether an instruction hidden in a title gets into what it writes."""

from __future__ import annotations

import functools
import itertools
import json

import jax
import numpy as np

from rgjax.config import DecodeConfig, EvaluateConfig
from rgjax.data.injected import neutral
from rgjax.errors import UserError
from rgjax.metrics import suite, tampering
from rgjax.models.build import ModelFactory
from rgjax.tasks.evaluation import measure
from rgjax.tasks.run import Run
from rgjax.tasks.streaming import read_reasons
from rgjax.train.loss import token_log_probs
from rgjax.train.workdir import replace_text

FILE = "tampering.json"
ROWS = 32
SHOWN = 10  # suspects on the terminal
_NOT_HERE = ("against", "earlier", "before", "ablate_vectors")


def report(config: EvaluateConfig, decode: DecodeConfig, progress) -> tuple[dict, str]:
    """(what tampering.json holds, a table for the terminal).

    References are changed in two ways, and scored by how unlikely the least likely tenth of their tokens is. Reasons of a file are scored alike, and
    those above what few references exceed are its suspects. Instructions are put behind the items' titles, and reasons written with and without
    `rgjax.data.injected.neutral`. Raises UserError for flags of other reports, a split of fewer than two, and a file of another length.
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
    given = read_reasons(config.outputs, len(examples), bool(config.limit)) if config.outputs else []
    clean_N = _surprise(run, examples, texts)
    result = {
        "split": config.split, "examples": len(examples), "checkpoint": run.step, "weights": config.weights, "synthetic": run.facts["synthetic"],
        "dataset": run.facts["dataset_name"], "false_alarms": tampering.FALSE_ALARMS,
        "detected": {name: tampering.told(clean_N, _surprise(run, examples, made), config.resamples) for name, made in changed.items()},
        "injected": _injected(run, decode, examples, lang, progress),
    }  # fmt: skip
    if given:
        scores_N, limit = _surprise(run, examples, given), tampering.limit(clean_N)
        suspects = [{"line": int(n) + 1, "score": float(scores_N[n]), "reason": given[n]} for n in np.flatnonzero(scores_N > limit)]
        result["outputs"] = {"file": config.outputs, "limit": limit, "suspects": suspects}
    folder = measure.made_folder(config)
    replace_text(folder / FILE, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return result | {"output": str(folder / FILE)}, table(result)


def _surprise(run: Run, examples: list[dict], texts: list[str]) -> np.ndarray:
    """How unlikely each text is as the reason of its example, by `metrics.tampering.surprise`, nats [N]; raises UserError where one is not finite."""
    scores_N = np.array([tampering.surprise(losses) for losses in token_losses(run, examples, texts)])
    if not np.isfinite(scores_N).all():
        raise UserError(f"{run.folder} gives a text no finite likelihood, so its training diverged; choose another run or --checkpoint.")
    return scores_N


def token_losses(run: Run, examples: list[dict], texts: list[str]) -> list[np.ndarray]:
    """The negative log-likelihood of each token of a text as the reason of its example, nats [T] a text, the end token included."""
    task, found = run.task, []
    for batch in task.one_a_row((e | {"reason": text} for e, text in zip(examples, texts, strict=True)), ROWS):
        losses_RT = np.asarray(_losses(task.factory, run.params, batch))
        found += [losses[weights > 0] for losses, weights in zip(losses_RT, batch["weights"], strict=True)]
    return found[: len(texts)]


@functools.partial(jax.jit, static_argnums=0)
def _losses(factory: ModelFactory, params: dict, batch: dict) -> jax.Array:
    model = factory.model(params)
    return -token_log_probs(model(batch), *model.head(), batch["targets"], batch["weights"])


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
    if "outputs" in result:
        suspects, share = result["outputs"]["suspects"], f"{result['false_alarms']:.0%} of the references exceed"
        lines.append(f"{len(suspects)} of {result['examples']} reasons of {result['outputs']['file']} are above what {share}")
        lines += [f"  line {one['line']}, {one['score']:.2f}: {one['reason'][:100]}" for one in suspects[:SHOWN]]
    for name, one in result["injected"].items():
        same = f", {one['as_without']:.1%} as without it" if "as_without" in one else ""
        lines.append(f"instruction in the title, {name}: {one['repeats']:.1%} of {one['examples']} reasons repeat what it asks for{same}")
    return "\n".join(lines)
