"""Adversarial training of a reason generator: it resumes exactly, its generator is used like any other, and mistakes are told."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import tiny

from rgjax.config import AdversarialConfig
from rgjax.errors import UserError
from rgjax.tasks import adversarial, reason, training
from rgjax.tasks.run import Run
from rgjax.tasks.verdicts import Verdicts
from rgjax.train import workdir
from rgjax.train.collapse import Collapse


def sections(dataset_folder, folder, **changes):
    gan = {"estimator": "gumbel", "d_steps": 2, "d_warmup": 1, "completions": 0, "old_samples": 8, "heat_schedule": "constant"}
    usual = {"discriminator": {"d_width": 8, "d_filters": 4, "d_windows": "2,3"}, "adversarial": gan}
    usual |= {name: usual.get(name, {}) | values for name, values in changes.items()}
    return tiny.sections(dataset_folder, folder, {"batch_size": 12}, **usual)


@pytest.fixture(scope="module")
def begun(dataset_folder, tmp_path_factory):
    """A generator of a few steps of maximum likelihood."""
    folder = tmp_path_factory.mktemp("runs") / "mle"
    made = sections(dataset_folder, folder, train={"steps": 4})
    training.assemble(made | {"adversarial": AdversarialConfig()}, None, set()).run()
    return folder


def run(dataset_folder, begun, folder, steps=6, save_every=10, **changes):
    stored = workdir.read(folder) if workdir.exists(folder) else None
    given = {"task": "adversarial", "init_from": str(begun), "steps": steps, "save_every": save_every}
    return adversarial.assemble(sections(dataset_folder, folder, train=given, **changes), stored, set()).run()


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {v["step"]: {name: v.get(name) for name in ("loss", "d_loss", "g_loss", "d_told_apart", "distinct_2")} for v in lines}


def test_a_stopped_run_goes_on_exactly_and_its_generator_writes(dataset_folder, begun, tmp_path):
    summary = run(dataset_folder, begun, tmp_path / "whole")
    assert summary["finished"] and summary["best_step"] is not None
    run(dataset_folder, begun, tmp_path / "parts", steps=3)
    run(dataset_folder, begun, tmp_path / "parts")
    whole, parts = logged(tmp_path / "whole"), logged(tmp_path / "parts")
    assert whole[1]["g_loss"] is None and whole[1]["d_loss"] > 0  # the generator rests in the first round
    assert whole[6]["g_loss"] is not None and parts.keys() == whole.keys()
    for step in (4, 5, 6):
        assert parts[step] == pytest.approx(whole[step], rel=1e-5)
    opened, before = Run.open(tmp_path / "whole", "last"), Run.open(begun)
    assert opened.params.keys() == before.params.keys()
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(opened.params), jax.tree.leaves(before.params), strict=True)]
    assert 0 < max(moved) < 0.1
    examples = list(opened.dataset().examples("val"))[:2]
    assert len(opened.task.writer(opened.params, opened.facts["decode"]).write(examples)) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": {"batch_size": 13}}, "--batch_size=13"),
        ({"input": {"packing": True}}, "--packing=True"),
        ({"adversarial": {"estimator": "none"}}, "--estimator"),
        ({"adversarial": {"old_samples": 7}}, "--old_samples"),
        ({"adversarial": {"d_warmup": 6}}, "--d_warmup=6"),
        ({"optimizer": {"learning_rate": 0.5}}, "--learning_rate=0.5"),
        ({"adapter": {"adapter": "lora"}}, "--adapter=lora"),
        ({"train": {"nonfinite": "skip"}}, "--nonfinite=skip"),
        ({"train": {"profile_steps": "50:60"}}, "--profile_steps"),
        ({"decode": {"code_words": "/nowhere.json"}}, "/nowhere.json"),
        ({"discriminator": {"d_windows": "x"}}, "--d_windows"),
        ({"discriminator": {"d_codes": True}, "adversarial": {"gan_loss": "wasserstein"}}, "--d_codes"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(dataset_folder, begun, tmp_path, changes, words):
    made = sections(dataset_folder, tmp_path / "w", train={"task": "adversarial", "init_from": str(begun)})
    for section, values in changes.items():
        made[section] = dataclasses.replace(made[section], **values)
    with pytest.raises(UserError, match=words):
        adversarial.assemble(made, None, set())
    assert not (tmp_path / "w").exists()


def test_a_judge_that_minds_codes_is_told_of_and_asked(dataset_folder, begun, tmp_path):
    run(dataset_folder, begun, tmp_path / "w", 3, discriminator={"d_codes": True})
    assert all("d_codes_told" in json.loads(line) for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines())
    opened, examples = Run.open(tmp_path / "w", "last"), list(Run.open(begun).dataset().examples("train"))[:4]
    unminded = dataclasses.replace(opened, facts=opened.facts | {"discriminator": dataclasses.replace(opened.facts["discriminator"], d_codes=False)})
    verdicts = [Verdicts(run)(examples, [e["reason"] for e in examples]) for run in (opened, unminded)]
    assert (np.abs(np.subtract(*verdicts)) > 1e-5).all()


def test_codes_are_minded_where_there_are_some(dataset_folder, begun, tmp_path, monkeypatch):
    opened = reason.dataset_tokenizer
    monkeypatch.setattr(reason, "dataset_tokenizer", lambda folder: _without_codes(*opened(folder)))
    with pytest.raises(UserError, match="--d_codes needs a control code"):
        run(dataset_folder, begun, tmp_path / "w", discriminator={"d_codes": True})
    assert not (tmp_path / "w").exists()


def _without_codes(dataset, tokenizer):
    dataset.controls = {"style": ["plain"]}
    return dataset, tokenizer


def test_a_generator_is_needed(dataset_folder, tmp_path):
    with pytest.raises(UserError, match="--init_from"):
        adversarial.assemble(sections(dataset_folder, tmp_path / "w", train={"task": "adversarial"}), None, set())


def test_a_collapse_ends_the_run_and_keeps_what_was_saved(dataset_folder, begun, tmp_path, monkeypatch):
    """What was saved before its figures fell: nothing is while they are low."""
    run(dataset_folder, begun, tmp_path / "w", steps=3)
    monkeypatch.setattr(adversarial.collapse, "Collapse", lambda kept: Collapse(kept, 0.999, 4))
    with pytest.raises(UserError, match="collapsed by round") as told:
        run(dataset_folder, begun, tmp_path / "w", steps=60, save_every=1)
    last = int(re.search(r"by round (\d+)", str(told.value))[1])
    assert 3 <= Run.open(tmp_path / "w").step <= last - 4


def test_a_run_that_is_stopped_while_its_figures_are_low_saves_nothing(dataset_folder, begun, tmp_path, capsys):
    for sound, saved in ((False, None), (True, 0)):
        given = {"task": "adversarial", "init_from": str(begun), "steps": 40}
        loop = adversarial.assemble(sections(dataset_folder, tmp_path / f"{sound}", train=given), None, set())
        loop.method, loop.preemption.requested = loop.method._replace(sound=lambda progress, sound=sound: sound), True
        assert not loop.run()["finished"] and loop.checkpoints.latest == saved
        assert ("nothing is saved yet" in capsys.readouterr().err) == (saved is None)


def test_reinforce_and_the_transformer_judge(dataset_folder, begun, tmp_path):
    how = {"estimator": "reinforce", "gan_loss": "bce", "nll_weight": 0.1}
    how |= {"completions": 2, "completions_every": 8}
    run(dataset_folder, begun, tmp_path / "w", steps=3, adversarial=how, discriminator={"discriminator": "transformer", "d_heads": 2, "d_layers": 1})
    told = logged(tmp_path / "w")
    assert told[3]["g_loss"] is not None and told[3]["d_loss"] > 0
    assert tiny.logged_losses(tmp_path / "w")[3] > 0
