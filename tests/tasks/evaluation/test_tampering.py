"""The tampering report of a small run, its scores against the run's own loss."""

import dataclasses
import json

import numpy as np
import pytest

from rgjax.config import EvaluateConfig
from rgjax.errors import UserError
from rgjax.tasks.evaluation import measure, tampering
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
    losses = tampering.token_losses(run, examples, [e["reason"] for e in examples])
    assert [len(one) for one in losses] == [len(run.task.template.render(e).target_ids) for e in examples]
    assert np.concatenate(losses).mean() == pytest.approx(run.perplexity(run.dataset(), "val")["loss"], rel=1e-4)
    run.task.input = dataclasses.replace(run.task.input, loss_on="all")  # a prompt's tokens are never a reason's
    again = tampering.token_losses(run, examples, [e["reason"] for e in examples])
    assert all(np.allclose(one, other) for one, other in zip(losses, again, strict=True))
    with pytest.raises(UserError, match="--against"):
        tampering.report(dataclasses.replace(config, against="x"), decode, None)


def test_reasons_of_a_file_that_are_surprising_are_told_by_line(unbroken_run, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "write", lambda run, decode, examples, progress: ["Oak"] * len(examples))
    reasons = [e["reason"] for e in Run.open(unbroken_run).dataset().examples("val")]
    reasons[2] = "zqx jvk wpf qqq zzx"
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"reason": text}) + "\n" for text in reasons))
    config = EvaluateConfig(workdir=str(unbroken_run), split="val", resamples=100, outputs=str(tmp_path / "mine.jsonl"), report="tampering")
    result, table = tampering.report(config, None, None)
    assert 3 in [one["line"] for one in result["outputs"]["suspects"]] and "line 3, " in table and "zqx" in table
    assert result["output"] == str(unbroken_run / "evaluations" / "mine" / "tampering.json")


def test_rounded_weights_have_a_folder_of_their_own_and_diverged_ones_are_refused(unbroken_run, monkeypatch):
    monkeypatch.setattr(measure, "write", lambda run, decode, examples, progress: ["Oak"] * len(examples))
    losses = lambda run, examples, texts: [np.full(3, float(n)) for n in range(len(texts))]
    monkeypatch.setattr(tampering, "token_losses", losses)
    config = EvaluateConfig(workdir=str(unbroken_run), limit=4, resamples=100, report="tampering", weights="int8")
    result, _ = tampering.report(config, None, None)
    assert result["output"] == str(unbroken_run / "evaluations" / "int8" / "tampering.json") and result["weights"] == "int8"
    assert not (unbroken_run / "tampering.json").exists()
    monkeypatch.setattr(tampering, "token_losses", lambda *given: [one * np.nan for one in losses(*given)])
    with pytest.raises(UserError, match="diverged"):
        tampering.report(config, None, None)
