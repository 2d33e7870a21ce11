"""--preference as a run: the reference is what it began with, tuning turns pairs round, resuming is exact, and mistakes are told."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from rgjax.config import DecodeConfig, EvaluateConfig
from rgjax.data.dataset import Dataset
from rgjax.data.pairs import Pairs
from rgjax.errors import UserError
from rgjax.tasks import preference, training
from rgjax.tasks.evaluation import measure
from rgjax.tasks.run import Run
from rgjax.train import workdir

USUAL = {
    "input": {"length": 192, "target_length": 64, "batch_size": 4, "packing": False, "buckets": "1"},
    "model": {"layers": 1, "width": 32, "heads": 2, "dropout": 0.0, "scan": False},
    "optimizer": {"warmup_steps": 1, "schedule": "constant", "learning_rate": 1e-3},
    "train": {"log_every": 1, "eval_every": 4, "save_every": 4, "compilation_cache": "", "samples": 0, "keep": 5},
}
DPO = {"preference": "dpo", "preference_beta": 0.5}


def assembled(**changes):
    """A run of USUAL with `changes` by section, continued where its workdir holds one."""
    sections = {name: cls() for name, cls in workdir.SECTIONS.items()}
    sections = {name: dataclasses.replace(s, **(USUAL.get(name, {}) | changes.get(name, {}))) for name, s in sections.items()}
    folder = sections["train"].workdir
    return training.assemble(sections, workdir.read(folder) if workdir.exists(folder) else None, set())


@pytest.fixture(scope="module")
def base(dataset_folder, tmp_path_factory):
    """A run of a few steps on the synthetic shop."""
    folder = tmp_path_factory.mktemp("base") / "run"
    assembled(input={"dataset": str(dataset_folder), "control_dropout": 0.1}, train={"workdir": str(folder), "steps": 8}).run()
    return folder


def tuned(base, pairs_folder, folder, steps, optimizer=DPO, **changes):
    changes["train"] = {"workdir": str(folder), "init_from": str(base), "steps": steps} | changes.get("train", {})
    changes["input"] = {"dataset": str(pairs_folder)} | changes.get("input", {})
    return assembled(optimizer=optimizer, **changes)


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_tuning_turns_pairs_round_and_goes_on_exactly(base, pairs_folder, tmp_path):
    tuned(base, pairs_folder, tmp_path / "whole", 24).run()
    tuned(base, pairs_folder, tmp_path / "parts", 8).run()
    tuned(base, pairs_folder, tmp_path / "parts", 24).run()
    whole, parts = logged(tmp_path / "whole"), logged(tmp_path / "parts")
    assert [row["loss"] for row in whole] == [row["loss"] for row in parts]
    assert whole[0]["loss"] == pytest.approx(np.log(2), rel=1e-5) and whole[0]["margin"] == pytest.approx(0, abs=1e-5)
    facts = workdir.read(tmp_path / "parts")
    assert facts["reads_bare"] and not facts["input"].control_dropout  # what it began with did, so it may be guided
    dataset = Dataset.open(pairs_folder)
    before = preference.accuracies(Run.open(base, "latest"), dataset, "train")
    config = EvaluateConfig(workdir=str(tmp_path / "whole"), checkpoint="latest", split="train", limit=2, resamples=10)
    result, text = measure.evaluate(config, DecodeConfig(max_new_tokens=8), lambda *_: None)
    found = result["preferences"]
    assert found["likelier than before"] > 0.8 and found["likelier"] > before["likelier"]
    for name in ("likelier", "likelier per token"):
        assert found[f"{name} before"] == pytest.approx(before[name])
    assert found["longer"] + found["shorter"] == pytest.approx(1.0) and "likelier than before" not in before
    assert f"{found['pairs']} pairs, judged as people did by: likelier than before {found['likelier than before']:.1%}" in text


def test_a_run_is_measured_on_pairs_that_it_never_read(base, pairs_folder, dataset_folder, tmp_path):
    """A dataset of another tokenizer is refused."""
    config = EvaluateConfig(workdir=str(base), dataset=str(pairs_folder), checkpoint="latest", split="val", limit=2, resamples=10)
    result, text = measure.evaluate(config, DecodeConfig(max_new_tokens=8), lambda *_: None)
    assert result["preferences"] == preference.accuracies(Run.open(base, "latest"), Dataset.open(pairs_folder), "val")
    assert not result["learned_from"] and f"{base} did not learn from {pairs_folder}" in text
    assert result["output"] == str(base / "evaluations" / pairs_folder.name / "evaluation.json") and not (base / "evaluation.json").exists()
    assert (result["dataset_folder"], result["dataset_fingerprint"]) == (str(pairs_folder.resolve()), Dataset.open(pairs_folder).fingerprint)
    tuned(base, pairs_folder, tmp_path / "run", 1).run()
    shop = EvaluateConfig(workdir=str(tmp_path / "run"), dataset=str(dataset_folder), split="val", limit=2, resamples=10)
    result, _ = measure.evaluate(shop, DecodeConfig(max_new_tokens=8), lambda *_: None)
    assert not result["learned_from"] and "preferences" not in result
    other = shutil.copytree(pairs_folder, tmp_path / "other")
    manifest = json.loads((other / "dataset.json").read_text())
    manifest["tokenizer"]["sha256"] = "0" * 64
    (other / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"--dataset={other} has another tokenizer than {base}; prepare it again with --tokenizer={base}/tokenizer"):
        measure.evaluate(dataclasses.replace(config, dataset=str(other)), DecodeConfig(), lambda *_: None)


def test_the_reference_is_what_the_run_began_with(base, pairs_folder, tmp_path):
    tuned(base, pairs_folder, tmp_path / "run", 1)
    table, run, dataset = load_file(tmp_path / "run/preference.safetensors"), Run.open(base, "latest"), Dataset.open(pairs_folder)
    pairs = Pairs(dataset, "val", run.task.template, run.task.input, "causal")
    assert table["val"].shape == (dataset.count("val"), 2) and table["train"].shape == (dataset.count("train"), 2)
    model = run.task.factory.model(run.params)
    for i in (0, 1):
        for side, text in enumerate(pairs[i]):
            batch = {name: jnp.asarray(text[name])[None] for name in ("tokens", "targets", "weights")}
            batch |= {"segment_ids": jnp.ones_like(batch["tokens"]), "positions": jnp.arange(batch["tokens"].shape[1])[None]}
            head, shrink = model.head()
            log_p = jax.nn.log_softmax(model(batch)[0] * shrink @ head.T)
            expected = sum(float(log_p[t, text["targets"][t]]) for t in np.flatnonzero(text["weights"]))
            assert table["val"][i, side] == pytest.approx(expected, rel=1e-4)


def test_an_adapter_shares_the_model_with_its_reference(base, pairs_folder, tmp_path):
    how = DPO | {"preference": "dpo_length", "preference_beta": 5.0, "learning_rate": 1e-2}
    tuned(base, pairs_folder, tmp_path / "lora", 16, how, adapter={"adapter": "lora", "rank": 4}).run()
    rows = logged(tmp_path / "lora")
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-5) and np.mean([row["margin"] for row in rows[8:]]) > 0.05


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"train": {"init_from": ""}}, "--preference=dpo tunes a trained model and none is given"),
        ({"input": {"loss_on": "all"}}, "--loss_on=all has no place in --preference=dpo"),
        ({"optimizer": DPO | {"rdrop": 0.5}}, "--rdrop=0.5 has no place in --preference=dpo"),
        ({"optimizer": {"preference_beta": 0.3}}, "--preference_beta=0.3 is given and --preference is not"),
        ({"optimizer": DPO | {"accumulate": 4}}, "--batch_size=4 in --accumulate=4 parts splits pairs"),
        ({"input": {"streams": 4}}, "--streams=4 leaves each 1 rows"),
        ({"input": {"batch_size": 400}}, "--batch_size=400 has more rows than the"),
        ({"adapter": {"adapter": "prompt"}}, "--adapter=prompt changes what a reason follows"),
        ({"input": {"control_dropout": 0.1}}, "--control_dropout=0.1 has no place in --preference=dpo"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(base, pairs_folder, tmp_path, changes, told):
    with pytest.raises(UserError) as caught:
        tuned(base, pairs_folder, tmp_path / "run", 2, **changes)
    assert told in str(caught.value) and not (tmp_path / "run").exists()


def test_a_dataset_without_pairs_is_refused(base, dataset_folder, tmp_path):
    with pytest.raises(UserError, match="train example 0 has no 'rejected' reason"):
        tuned(base, dataset_folder, tmp_path / "run", 2)
    assert not (tmp_path / "run").exists()


def test_a_lost_table_is_told(base, pairs_folder, tmp_path):
    tuned(base, pairs_folder, tmp_path / "run", 2)
    (tmp_path / "run/preference.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="preference.safetensors is missing or damaged"):
        tuned(base, pairs_folder, tmp_path / "run", 4)
