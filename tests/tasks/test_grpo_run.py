"""Tuning by rewards: what is rewarded grows, a stopped run goes on exactly, adapters share the reference, and mistakes are told."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny

from rgjax.config import AdapterConfig, AdversarialConfig, DiscriminatorConfig, OptimizerConfig
from rgjax.data import numbered
from rgjax.errors import UserError
from rgjax.tasks import adversarial, grpo, rewards, training
from rgjax.tasks.run import Run
from rgjax.tasks.verdicts import Verdicts
from rgjax.train import workdir

TOLD = ("loss", "kl", "reward_repetition", "distinct_2")


def sections(dataset_folder, folder, **changes):
    usual = {"optimizer": {"learning_rate": 1e-3, "warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0}}
    usual |= {"reward": {"rewards": "repetition=1,grounding=1"}, "group": {"group": 4, "group_nll": 0.1}}
    usual |= {name: usual.get(name, {}) | values for name, values in changes.items()}
    return tiny.sections(dataset_folder, folder, {"batch_size": 4, "control_dropout": 0.2}, **usual)


@pytest.fixture(scope="module")
def begun(dataset_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mle"
    training.assemble(sections(dataset_folder, folder, train={"steps": 8}, reward={"rewards": ""}), None, set()).run()
    return folder


def run(dataset_folder, begun, folder, steps=6, explicit=frozenset(), **changes):
    stored = workdir.read(folder) if workdir.exists(folder) else None
    given = {"task": "grpo", "init_from": str(begun), "steps": steps}
    return grpo.assemble(sections(dataset_folder, folder, train=given, **changes), stored, set(explicit)).run()


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {v["step"]: {name: v[name] for name in TOLD} for v in lines}


def test_a_stopped_run_goes_on_exactly_and_is_used_like_any_other(dataset_folder, begun, tmp_path):
    assert run(dataset_folder, begun, tmp_path / "whole")["finished"]
    run(dataset_folder, begun, tmp_path / "parts", steps=3)
    run(dataset_folder, begun, tmp_path / "parts")
    whole, parts = logged(tmp_path / "whole"), logged(tmp_path / "parts")
    assert whole[1]["kl"] == pytest.approx(0, abs=1e-6) and whole[6]["kl"] > 1e-7  # it begins with the reference, and leaves it
    for step in (4, 5, 6):
        assert parts[step] == pytest.approx(whole[step], rel=1e-4, abs=1e-6)
    opened = Run.open(tmp_path / "whole")
    assert opened.step == 6  # the last: likelihood does not choose
    examples = list(opened.dataset().examples("val"))[:2]
    assert len(opened.task.writer(opened.params, opened.facts["decode"]).write(examples)) == 2


def test_what_is_rewarded_grows(dataset_folder, begun, tmp_path, monkeypatch):
    """Texts are rewarded for being short: after some steps they are."""
    short = rewards._each(lambda example, text: -float(len(text)))
    monkeypatch.setitem(rewards.MAKERS, "repetition", short)
    how = {"reward": {"rewards": "repetition=1"}, "group": {"group_kl": 0.0, "group_nll": 0.0}}
    run(dataset_folder, begun, tmp_path / "w", steps=30, optimizer={"learning_rate": 1e-2}, **how)
    told = logged(tmp_path / "w")
    first, last = (np.mean([told[s]["reward_repetition"] for s in steps]) for steps in (range(1, 6), range(26, 31)))
    assert last > 0.7 * first  # both are below 0


def test_an_adapter_shares_its_model_with_the_reference(dataset_folder, begun, tmp_path):
    loops = []
    how = {"adapter": {"adapter": "lora", "rank": 2}, "group": {"group_nll": 0.0}}
    made = sections(dataset_folder, tmp_path / "w", train={"task": "grpo", "init_from": str(begun)}, **how)
    loops.append(grpo.assemble(made, None, set()))
    assert loops[0].fixed["weights"]
    loops[0].run()
    told = logged(tmp_path / "w")
    assert told[1]["kl"] == pytest.approx(0, abs=1e-6) and told[6]["kl"] > 0
    before, after = Run.open(begun).params, Run.open(tmp_path / "w").params
    own = {name: value for name, value in after.items() if name != "adapter"}
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(own), strict=True):
        np.testing.assert_array_equal(a, b)


def test_accumulation_learns_the_same(dataset_folder, begun, tmp_path):
    run(dataset_folder, begun, tmp_path / "one", steps=2, group={"group_nll": 1.0})
    run(dataset_folder, begun, tmp_path / "two", steps=2, group={"group_nll": 1.0}, optimizer={"accumulate": 2})
    one, two = (logged(tmp_path / name) for name in ("one", "two"))
    for step in (1, 2):
        assert two[step] == pytest.approx(one[step], rel=2e-3, abs=2e-6)


def test_a_discriminator_judges_and_is_remembered(dataset_folder, begun, tmp_path):
    made = sections(dataset_folder, tmp_path / "gan", train={"task": "adversarial", "init_from": str(begun), "steps": 2}, reward={"rewards": ""})
    made["input"] = dataclasses.replace(made["input"], control_dropout=0.0)
    made["optimizer"] = OptimizerConfig()
    made["adversarial"] = AdversarialConfig(estimator="gumbel", d_steps=1, d_warmup=1)
    made["discriminator"] = DiscriminatorConfig(d_width=8, d_filters=4, d_windows="2,3")
    adversarial.assemble(made, None, set()).run()
    judged = {"reward": {"rewards": "discriminator=1", "discriminator_from": str(tmp_path / "gan")}}
    run(dataset_folder, begun, tmp_path / "w", steps=2, **judged)
    lines = [json.loads(line) for line in (tmp_path / "w" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["reward_discriminator"] < 1 for line in lines)
    examples = list(Run.open(begun).dataset().examples("val"))[:3]
    verdicts = Verdicts.open(str(tmp_path / "gan"))
    one = verdicts(examples, ["Some text.", "Another text.", "A third."])
    assert one[:2] == pytest.approx(verdicts(examples[:2], ["Some text.", "Another text."])) and len(set(one)) == 3
    facts = workdir.read(tmp_path / "w")
    assert facts["discriminator_fingerprint"] == verdicts.fingerprint
    workdir.write(tmp_path / "w", facts | {"discriminator_fingerprint": "another"})
    with pytest.raises(UserError, match="another discriminator"):
        run(dataset_folder, begun, tmp_path / "w", steps=3, **judged)


def test_any_codes_are_asked_for_and_rewarded(dataset_folder, dataset, begun, tmp_path, monkeypatch):
    seen = []
    asked = rewards._each(lambda example, text: float(len(seen.append((example["item"]["id"], tuple(example["control"].items()))) or text)))
    monkeypatch.setitem(rewards.MAKERS, "repetition", asked)
    how = {"reward": {"rewards": "repetition=1"}, "group": {"any_codes": True, "group_nll": 0.0}, "input": {"batch_size": 16}}
    run(dataset_folder, begun, tmp_path / "w", steps=4, **how)
    controls = [dict(control) for _, control in dict.fromkeys(seen)]
    assert {name for control in controls for name in control} == set(dataset.controls)
    for name, values in dataset.controls.items():
        assert {control[name] for control in controls if control} == set(values)
    assert 0 < sum(not control for control in controls) < len(controls) / 2  # some are dropped
    for control in controls:
        back = numbered.control(numbered.numbers(control, dataset.controls), dataset.controls)
        assert back == control


def test_what_is_rewarded_is_what_was_shown_before(dataset_folder, begun, tmp_path):
    run(dataset_folder, begun, tmp_path / "w", steps=1)
    with pytest.raises(UserError, match="decoding flags"):
        run(dataset_folder, begun, tmp_path / "w", steps=2, decode={"max_length": 5})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": {"packing": True}}, "--packing=True"),
        ({"reward": {"rewards": ""}}, "--rewards is missing"),
        ({"reward": {"rewards": "repetition=1,x=1"}}, "--rewards has 'x'"),
        ({"adapter": {"adapter": "prefix"}}, "--adapter=prefix"),
        ({"optimizer": {"ema": 0.9}}, "--ema=0.9"),
        ({"optimizer": {"accumulate": 3}}, "accumulate"),
        ({"train": {"init_from": ""}}, "--init_from"),
        ({"train": {"patience": 3}}, "--patience=3"),
        ({"group": {"any_codes": True}}, "give --group_nll=0"),
        ({"reward": {"rewards": "grounding=0"}}, "weighs everything 0"),
        ({"adapter": {"adapter": "lora", "adapter_from": "x"}}, "--adapter_from=x"),
        ({"model": {"dropout": 0.5}}, "--dropout=0.5"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(dataset_folder, begun, tmp_path, changes, words):
    made = sections(dataset_folder, tmp_path / "w", train={"task": "grpo", "init_from": str(begun)})
    for section, values in changes.items():
        made[section] = dataclasses.replace(made[section], **values)
    with pytest.raises(UserError, match=words):
        grpo.assemble(made, None, {"dropout"} if "model" in changes else set())
    assert not (tmp_path / "w").exists()


def test_an_encoder_decoder_is_refused(dataset_folder, begun, tmp_path):
    made = sections(dataset_folder, tmp_path / "e", model={"architecture": "seq2seq"}, train={"steps": 1}, reward={"rewards": ""})
    training.assemble(made, None, set()).run()
    with pytest.raises(UserError, match="--architecture=causal"):
        run(dataset_folder, tmp_path / "e", tmp_path / "w", adapter=dataclasses.asdict(AdapterConfig()))
