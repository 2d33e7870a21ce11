"""Filtered fine-tuning: what passes, rounds that go on where they stopped, and two runs through the same filter."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launched import run as launched

from rgjax.config import DecodeConfig, OptimizerConfig, RefineConfig, RewardConfig
from rgjax.data.dataset import Dataset
from rgjax.errors import UserError
from rgjax.tasks import judges, refine
from rgjax.tasks.rewards import Rewards
from rgjax.tasks.run import Run

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=0, schedule="constant")
DECODE = DecodeConfig(method="sample", temperature=1.0, max_new_tokens=16)
REWARD = RewardConfig(rewards="repetition=0.9,grounding=-5")


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["a b", "A  b", "c", "", " "])), max_size=12))
def test_what_passes_by_brute_force(rows):
    scores, texts = np.array([row[:2] for row in rows]).reshape(-1, 2), [row[2] for row in rows]
    found, seen = refine.passing(scores, np.array([0.5, 0.25]), texts, set()), []
    for (one, other, text), passed in zip(rows, found, strict=True):
        plain = text.lower().split()
        assert passed == (one >= 0.5 and other >= 0.25 and plain != [] and plain not in seen)
        seen += [plain] if passed else []


@pytest.mark.parametrize("reason, written, length", [("轻便好穿，适合跑步。", "舒适 耐用。", 5), ("Light and easy to wear.", "Soft and warm.", 3)])
def test_what_is_written_is_as_long_as_its_language_counts(tmp_path, reason, written, length):
    """Characters of Chinese, words of English."""
    writer, rewards = SimpleNamespace(write=lambda held: [[written]] * len(held)), lambda held, texts: np.ones((len(texts), 1))
    rewards.names, rewards.judged = ["usual"], {}
    dataset = SimpleNamespace(examples=lambda split: [{"item": {"title": "x"}, "reason": reason}] * 4)
    run = SimpleNamespace(writer=lambda decode: writer, perplexity=lambda *_: {"loss": 1.0}, facts={})
    config = RefineConfig(output=str(tmp_path), shown=4)
    rounds = refine.Rounds(config, refine.TUNED, "", rewards, OPTIMIZER, lambda facts: DECODE, dataset, lambda done, total: None)
    assert rounds.measured(run)["words"] == length


def refined(unbroken_run, folder, rounds, reward=REWARD, **changes):
    config = RefineConfig(init_from=str(unbroken_run), output=str(folder), rounds=rounds, draws=2, steps=2, shown=4, **changes)
    return refine.refine(config, reward, OPTIMIZER, DECODE, {"method", "temperature", "max_new_tokens"}, lambda done, total: None)


@pytest.fixture(scope="module")
def rounds(unbroken_run, tmp_path_factory):
    """(folder, the result of two rounds, its table), after a first one for which there was a plain run too: the same."""
    folder = tmp_path_factory.mktemp("refined") / "rounds"
    first, _ = refined(unbroken_run, folder, 1, plain=str(unbroken_run))
    assert first["plain"] == first["tuned"] and first["runs"].keys() == {"tuned", "plain"}
    return folder, *refined(unbroken_run, folder, 2)


def test_rounds_are_told_beside_what_was_before(rounds, unbroken_run, dataset):
    folder, result, table = rounds
    before, first, second = result["tuned"]
    assert before["nll"] == pytest.approx(Run.open(unbroken_run).perplexity(dataset, "val")["loss"])
    assert second["nll"] == pytest.approx(Run.open(result["runs"]["tuned"]).perplexity(dataset, "val")["loss"])
    assert first["nll"] != before["nll"] and 0 < first["pass_share"] < 1
    assert [line.split()[:2] for line in table.splitlines()[2:]] == [["tuned", str(r)] for r in range(3)]
    assert json.loads((folder / "refine.json").read_text())["found"]["tuned"]["1"] == first


def test_what_passed_is_what_was_written_and_filtered(rounds, dataset):
    folder, result, _ = rounds
    kept = list(Dataset.open(folder / "tuned" / "round_1" / "kept").examples("train"))
    rows = [json.loads(line) for line in (folder / "tuned" / "round_1" / "written.jsonl").read_text().splitlines()]
    assert len(rows) == dataset.count("train")
    written = {reason for row in rows for reason in row.get("reasons", [row["reason"]])}
    assert {e["reason"] for e in kept} <= written and len(kept) == result["tuned"][1]["passed"]
    assert len({e["reason"].lower() for e in kept}) == len(kept)
    later = list(Dataset.open(folder / "tuned" / "round_2" / "kept").examples("train"))
    assert not {refine.plain(e["reason"]) for e in later} & {refine.plain(e["reason"]) for e in kept}
    second = json.loads((folder / "tuned" / "round_2" / "run" / "config.json").read_text())
    assert second["train"]["init_from"] == str(folder / "tuned" / "round_1" / "run")


def test_other_options_and_other_folders_are_refused(rounds, unbroken_run, tmp_path):
    with pytest.raises(UserError, match="begun with seed=0, not 5"):
        refined(unbroken_run, rounds[0], 2, seed=5)
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        refined(unbroken_run, tmp_path, 1)
    with pytest.raises(UserError, match="--method=beam"):
        refine.refine(
            RefineConfig(init_from=str(unbroken_run), output=str(tmp_path / "n")), REWARD, OPTIMIZER, DecodeConfig(method="beam"), {"method"}, print
        )


def test_judges_do_not_learn_from_what_a_model_wrote(rounds, dataset_folder):
    run = Run.open(rounds[1]["runs"]["tuned"])
    with pytest.raises(UserError, match="written by a model"):
        Rewards(RewardConfig(rewards="codes=1"), run.dataset())
    own = run.dataset(dataset_folder)  # the dataset that they were written for is the run's too
    assert Rewards(RewardConfig(rewards="codes=1"), own).names == ["codes"]
    with pytest.raises(UserError, match="written by a model"):
        judges.check(run.dataset(), "train")
    judges.check(run.dataset(), "val")


def test_a_filter_that_nothing_passes_is_told_and_lowered(unbroken_run, tmp_path, monkeypatch):
    config = RefineConfig(init_from=str(unbroken_run), output=str(tmp_path / "n"), rounds=1, draws=1, steps=1, shown=2)
    with pytest.raises(UserError, match="Nothing of round 1 passes"):
        refine.refine(config, RewardConfig(rewards="repetition=1.5"), OPTIMIZER, DECODE, {"max_new_tokens"}, lambda done, total: None)
    monkeypatch.setattr(refine.Rounds, "learn", lambda *_: False)  # as if a signal had come
    with pytest.raises(UserError, match="Round 1 was interrupted"):
        refine.refine(config, RewardConfig(rewards="repetition=0.1"), OPTIMIZER, DECODE, {"max_new_tokens"}, lambda done, total: None)
    assert json.loads((tmp_path / "n" / "refine.json").read_text())["found"]["tuned"].keys() == {"0"}


def test_the_launcher_tells_what_is_done(unbroken_run, rounds):
    given = {"init_from": unbroken_run, "output": rounds[0], "rounds": 2, "draws": 2, "steps": 2, "shown": 4, "rewards": REWARD.rewards}
    given |= {"learning_rate": 1e-3, "warmup_steps": 0, "schedule": "constant", "method": "sample", "temperature": 1.0, "max_new_tokens": 16}
    done = launched("launch.refine", given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["tuned"] == rounds[1]["tuned"] and "synthetic" in done.stdout
    again = launched("launch.refine", given | {"rewards": ""})
    assert again.returncode == 2 and "--rewards is missing" in again.stderr


def test_any_codes_are_asked_for_and_learned_from(unbroken_run, dataset, tmp_path, monkeypatch):
    """What passed keeps the codes that it was asked for with, which are not the examples' own; also when it stops in between."""
    with pytest.raises(UserError, match="no reward judges"):
        refined(unbroken_run, tmp_path / "unjudged", 1, any_codes=True)
    go_on = lambda: refined(unbroken_run, tmp_path / "any", 1, RewardConfig(rewards="codes=0,repetition=0.9"), any_codes=True)
    folder = tmp_path / "any" / "tuned" / "round_1"
    passed = lambda: list(Dataset.open(folder / "kept").examples("train"))
    with monkeypatch.context() as patch:
        patch.setattr(refine.Rounds, "learn", lambda *_: False)  # as if a signal had come
        with pytest.raises(UserError, match="Round 1 was interrupted"):
            go_on()
        before = passed()
        shutil.rmtree(folder / "kept")  # as if it had come before the filter
        with pytest.raises(UserError, match="Round 1 was interrupted"):
            go_on()
    go_on()
    assert passed() == before
    asked = [json.loads(line)["control"] for line in (folder / "inputs.jsonl").read_text().splitlines()]
    own = [example["control"] for example in dataset.examples("train")]
    assert len(asked) == len(own) and sum(a == o for a, o in zip(asked, own, strict=True)) < len(own) / 2
    assert all(a and all(value in dataset.controls[name] for name, value in a.items()) for a in asked)
    assert {len(a) for a in asked} == set(range(1, len(dataset.controls) + 1))
    rows = [json.loads(line) for line in (folder / "written.jsonl").read_text().splitlines()]
    made = {reason: a for row, a in zip(rows, asked, strict=True) for reason in row.get("reasons", [row["reason"]])[::-1]}
    kept = passed()
    assert kept and np.mean([e["control"] == made[e["reason"]] for e in kept]) > 0.9  # but for a text that several inputs got
