"""Where evaluations are written, and what is refused before anything is measured."""

import json
import pathlib
import shutil
import types

import numpy as np
import pytest

from rgjax.config import DecodeConfig, EvaluateConfig
from rgjax.errors import UserError
from rgjax.tasks.evaluation import measure
from rgjax.tasks.run import Run, check_loss


def of(path, fingerprint):
    return types.SimpleNamespace(folder=pathlib.Path(path), fingerprint=fingerprint)


def test_reports_of_one_name_lie_apart_and_nothing_is_lost(tmp_path):
    run = EvaluateConfig(workdir=str(tmp_path / "run"))
    mine = EvaluateConfig(workdir=run.workdir, outputs="a/shop.jsonl")
    asked = [
        (run, None), (run, of("a/shop", "1" * 64)), (run, of("b/shop", "2" * 64)), (run, of("c/int8", "3" * 64)),
        (EvaluateConfig(workdir=run.workdir, weights="int8"), None), (EvaluateConfig(workdir=run.workdir, weights="int8"), of("a/shop", "1" * 64)),
        (mine, None), (EvaluateConfig(workdir=run.workdir, outputs="b/shop.jsonl"), None), (mine, of("a/shop", "1" * 64)),
        (mine, of("b/shop", "2" * 64)),
    ]  # fmt: skip
    for n, (config, other) in enumerate(asked):
        (measure.made_folder(config, other) / "evaluation.json").write_text(str(n))
    for _ in range(2):  # the same again takes the same place
        folders = [measure.made_folder(config, other) for config, other in asked]
        assert [(folder / "evaluation.json").read_text() for folder in folders] == [str(n) for n in range(len(asked))]
    names = [str(folder.relative_to(run.workdir)) for folder in folders]
    assert names[:4] == [".", "evaluations/shop", "evaluations/shop-22222222", "evaluations/int8"]
    assert names[5] == "evaluations/shop/int8" and names[8] == "evaluations/shop/shop"
    assert measure.made_folder(EvaluateConfig(workdir=run.workdir, output=str(tmp_path / "x"), weights="int8"), None) == tmp_path / "x"


def test_reports_that_do_not_say_whose_they_are_stay(tmp_path):
    old = tmp_path / "evaluations" / "shop"
    old.mkdir(parents=True)
    (old / "evaluation.json").write_text("{}")
    assert measure.made_folder(EvaluateConfig(workdir=str(tmp_path)), of("shop", "ab" * 32)).name == "shop-abababab"


def test_a_split_that_a_dataset_lacks_is_told_in_either_kind_of_weights(unbroken_run, dataset_folder, tmp_path):
    other = shutil.copytree(dataset_folder, tmp_path / "other")
    manifest = json.loads((other / "dataset.json").read_text())
    manifest["counts"]["val"], manifest["splits"]["val"] = 0, []
    (other / "dataset.json").write_text(json.dumps(manifest))
    for weights in ("float", "int8"):
        config = EvaluateConfig(workdir=str(unbroken_run), dataset=str(other), split="val", weights=weights, output=str(tmp_path / "out"))
        with pytest.raises(UserError, match=f"{other} has no 'val' examples; it has train"):
            measure.evaluate(config, DecodeConfig(), lambda *_: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("loss", [np.nan, np.inf, 1e4])
def test_a_loss_without_a_perplexity_is_told(loss):
    with pytest.raises(UserError, match="run gives references a loss of .*diverged; choose another run"):
        check_loss("run", loss)
    check_loss("run", 600.0)


def test_diverged_weights_are_not_measured(unbroken_run):
    run = Run.open(unbroken_run)
    run.params = {**run.params, "decoder": {**run.params["decoder"], "norm": {"scale": run.params["decoder"]["norm"]["scale"] * np.nan}}}
    with pytest.raises(UserError, match="diverged"):
        run.perplexity(run.dataset(), "val")
