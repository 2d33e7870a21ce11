"""The control report of a run: what it counts, writes and refuses."""

import json

import pytest

from rgjax.config import DecodeConfig, EvaluateConfig, planned
from rgjax.errors import UserError
from rgjax.report import control as page
from rgjax.tasks import control, run

DECODE = {"max_new_tokens": 20, "decode_batch": 16}


@pytest.fixture(scope="module")
def found(unbroken_run, tmp_path_factory):
    """(control.json's content, the table) of two inputs, with planned lengths and a required word."""
    config = EvaluateConfig(workdir=str(unbroken_run), limit=2, report="control", output=str(tmp_path_factory.mktemp("control")))
    return control.report(config, DecodeConfig(**DECODE, plan_length=12, required_words="oak"), lambda *a: None)


def test_every_value_of_every_code_is_asked_for_and_judged(found, dataset):
    result, table = found
    stored = json.loads(open(result["output"], encoding="utf-8").read())
    assert stored == {k: v for k, v in result.items() if k != "output"}
    assert {name: code["labels"] for name, code in result["codes"].items()} == dataset.controls
    for name, code in result["codes"].items():
        assert [sum(row) for row in code["confusion"]] == [2] * len(code["labels"])
        right = sum(row[i] for i, row in enumerate(code["confusion"]))
        assert code["compliance"] == right / (2 * len(code["labels"])) and sum(code["uncontrolled_judged"]) == 2
        assert code["judge"]["accuracy"] > 0.6 and f"{name}, all" in table  # the shop's codes are in its words
    assert result["length"]["share"] == 1.0 and result["required_words"]["share"] == 1.0
    assert {aim["what"].split()[0] for aim in result["aims"]} == {*dataset.controls, "length"}


def test_the_page_holds_every_count(found):
    result, _ = found
    text = page.page(result)
    for name, code in result["codes"].items():
        assert f"<h2>{name}</h2>" in text
        for asked, row in zip(code["labels"], code["confusion"], strict=True):
            for judged, count in zip(code["labels"], row, strict=True):
                assert f"asked {asked}, judged {judged}: {count} of 2" in text
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "train"}, "--judge_split=train would judge what it learned from"),
        ({"outputs": "mine.jsonl"}, "--outputs is for --report=scores"),
        ({"judge_split": "test"}, "No control code has two values with 20 references"),
    ],
)
def test_what_would_say_nothing_is_refused(options, message, unbroken_run):
    with pytest.raises(UserError, match=message):
        control.report(EvaluateConfig(workdir=str(unbroken_run), report="control", **options), DecodeConfig(**DECODE), lambda *a: None)


def test_a_planned_length_sets_its_limits_and_contradicts_others():
    assert planned(DecodeConfig(plan_length=30)) == DecodeConfig(min_length=28, max_length=32)
    assert planned(DecodeConfig(plan_length=1, plan_tolerance=3)) == DecodeConfig(min_length=1, max_length=4, plan_tolerance=3)
    assert planned(DecodeConfig(min_length=4)) == DecodeConfig(min_length=4)
    for options, message in [({"max_length": 9}, "sets --min_length and --max_length"), ({"max_new_tokens": 30}, "exceed --max_new_tokens=30")]:
        with pytest.raises(UserError, match=message):
            planned(DecodeConfig(plan_length=30, **options))


@pytest.mark.parametrize("own", [{"min_length": 50}, {"max_length": 60}])
def test_a_planned_length_goes_before_the_lengths_of_the_run(own):
    facts = {"decode": DecodeConfig(**own), "controls": {}}
    chosen = run.decode_config(facts, DecodeConfig(plan_length=20), {"plan_length"})
    assert planned(chosen) == DecodeConfig(min_length=18, max_length=22)


def test_aims_are_met_or_fallen_short_of():
    code = {"compliance": 0.9, "least_class": 0.7, "perplexity_ratio": 1.0, "distinct_2_ratio": 0.9}
    aims = control._aims({"codes": {"tone": code}, "length": {"share": 0.99}})
    assert [aim["met"] for aim in aims] == [True, False, True, False, True]
