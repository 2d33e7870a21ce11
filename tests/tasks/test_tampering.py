"""The tampering report of a small run, its scores against the run's own loss."""

import dataclasses
import json

import numpy as np
import pytest

from rgjax.config import EvaluateConfig
from rgjax.errors import UserError
from rgjax.tasks import measure, tampering
from rgjax.tasks.run import Run


def test_a_run_is_reported(unbroken_run, tmp_path):
    config = EvaluateConfig(workdir=str(unbroken_run), split="val", limit=4, resamples=100, output=str(tmp_path), report="tampering")
    run = Run.open(unbroken_run)
    decode = dataclasses.replace(run.facts["decode"], max_new_tokens=12)
    result, table = tampering.report(config, decode, lambda done, total: None)
    assert json.loads((tmp_path / "tampering.json").read_text())["detected"].keys() == {"words swapped", "claim inserted"}
    assert result["injected"]["without"]["repeats"] == 0 and result["injected"]["stripped"]["as_without"] == 1
    assert "AUC" in table and "stripped" in table
    examples = list(run.dataset().examples("val"))
    losses = tampering._surprise(run, examples, [e["reason"] for e in examples])
    tokens = [len(run.task.template.render(e).target_ids) for e in examples]
    assert np.average(losses, weights=tokens) == pytest.approx(run.perplexity(run.dataset(), "val")["loss"], rel=1e-4)
    with pytest.raises(UserError, match="--outputs"):
        tampering.report(dataclasses.replace(config, outputs="x"), decode, None)


def test_rounded_weights_have_a_folder_of_their_own_and_diverged_ones_are_refused(unbroken_run, monkeypatch):
    monkeypatch.setattr(measure, "write", lambda run, decode, examples, progress: ["Oak"] * len(examples))
    losses = lambda task, params, batches: np.array([row for batch in batches for row in range(len(next(iter(batch.values()))))], np.float32)
    monkeypatch.setattr(tampering, "example_losses", losses)
    config = EvaluateConfig(workdir=str(unbroken_run), limit=4, resamples=100, report="tampering", weights="int8")
    result, _ = tampering.report(config, None, None)
    assert result["output"] == str(unbroken_run / "evaluations" / "int8" / "tampering.json") and result["weights"] == "int8"
    assert not (unbroken_run / "tampering.json").exists()
    monkeypatch.setattr(tampering, "example_losses", lambda *given: losses(*given) * np.nan)
    with pytest.raises(UserError, match="diverged"):
        tampering.report(config, None, None)
