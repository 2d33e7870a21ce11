"""The control report of a run: what it counts, writes and refuses."""

import copy
import json
import re

import pytest
from launched import run as launched

from rgjax.config import DecodeConfig, EvaluateConfig, planned
from rgjax.errors import UserError
from rgjax.report import control as page
from rgjax.tasks import decoding
from rgjax.tasks.evaluation import control, measure

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
        for row, key in [(code, "compliance"), (code, "least_class"), *((row, "compliance") for row in code["values"].values())]:
            low, high = row[f"{key}_95"]
            assert 0 <= low <= row[key] <= high <= 1
        assert code["judge"]["accuracy"] > 0.6 and f"{name}, all" in table  # the shop's codes are in its words
    rows = [result["uncontrolled"], *(row for code in result["codes"].values() for row in code["values"].values())]
    assert {row[column] for row in rows for column in ("planned_length", "required_words")} == {1.0}
    assert result["references"]["planned_length"] < 1.0 and result["references"]["required_words"] < 1.0
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
    assert "<th>planned_length</th>" in text and "<th>required_words</th>" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_judge_without_labels_to_be_measured_on_is_shown_so(found):
    result = copy.deepcopy(found[0])
    judge = next(iter(result["codes"].values()))["judge"]
    judge |= {"held_out": 0, "accuracy": None, "recall": dict.fromkeys(judge["recall"])}
    assert "right on - of 0 references" in page.page(result) and "-" in control.table(result)


def test_texts_of_one_word_leave_values_undefined_and_the_json_valid(unbroken_run, monkeypatch):
    """Rounded weights in a folder of their own, at that, and a judge that learned from no more texts than are allowed."""
    monkeypatch.setattr(measure, "write", lambda run, decode, examples, progress: ["Oak"] * len(examples))
    monkeypatch.setattr(measure, "TRAIN_LIMIT", 100)
    config = EvaluateConfig(workdir=str(unbroken_run), limit=2, report="control", weights="int8", resamples=100)
    result, table = control.report(config, DecodeConfig(**DECODE), lambda *a: None)
    assert result["output"] == str(unbroken_run / "evaluations" / "int8" / "control.json") and not (unbroken_run / "control.json").exists()
    strict = lambda what: pytest.fail(f"{what} is no JSON")
    json.loads(open(result["output"], encoding="utf-8").read(), parse_constant=strict)
    assert result["uncontrolled"]["distinct_2"] is None
    for code in result["codes"].values():
        assert code["distinct_2_ratio"] is None and code["judge"]["learned_from"] <= 100
    undefined = [aim for aim in result["aims"] if aim["what"].endswith("distinct_2_ratio")]
    assert undefined and all(aim["value"] is None and aim["met"] is None for aim in undefined)
    assert not re.search(r"\bnan\b", table + page.page(result), re.IGNORECASE)


@pytest.mark.parametrize("report, flag, value", [("control", "max_words", 5), ("tampering", "max_words", 5), ("scores", "judge_split", "test")])
def test_flags_that_a_report_does_not_read_are_refused(report, flag, value, unbroken_run):
    done = launched("launch.evaluate", {"workdir": unbroken_run, "report": report, flag: value})
    assert done.returncode == 2 and f"error: --{flag}" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "train"}, "--judge_split=train would judge what it learned from"),
        ({"outputs": "mine.jsonl"}, "--outputs is for --report=scores"),
        ({"judge_split": "test"}, "No control code has two values with 10 references"),
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


def test_a_length_that_its_code_excludes_is_refused():
    run = {"length_bands": "words:30,60"}
    check = lambda value, **options: decoding.check_lengths(run, DecodeConfig(length_unit="words", **options), {"length": value})
    for value, options in [("under30", {"plan_length": 60}), ("from60", {"max_length": 59}), ("30to59", {"min_length": 60})]:
        with pytest.raises(UserError, match=f"--control asks for length={value}, in words, and --"):
            check(value, **options)
    for value, options in [("under30", {"plan_length": 31}), ("from60", {"max_length": 60}), ("30to59", {"min_length": 59}), ("from60", {})]:
        check(value, **options)
    decoding.check_lengths(run, DecodeConfig(plan_length=90), {"length": "under30"})  # tokens
    decoding.check_lengths({}, DecodeConfig(plan_length=90, length_unit="words"), {"length": "under30"})  # a code of the data's own


def test_a_code_is_asked_for_once():
    with pytest.raises(UserError, match="asks for topic twice; give one value"):
        decoding.parse_control("topic=a, topic=b", {"topic": ["a", "b"]})


@pytest.mark.parametrize("own", [{"min_length": 50}, {"max_length": 60}])
def test_a_planned_length_goes_before_the_lengths_of_the_run(own):
    facts = {"decode": DecodeConfig(**own), "controls": {}}
    chosen = decoding.configured(facts, DecodeConfig(plan_length=20), {"plan_length"})
    assert planned(chosen) == DecodeConfig(min_length=18, max_length=22)


def test_the_tolerance_of_no_planned_length_is_refused():
    facts = {"decode": DecodeConfig(), "controls": {}}
    with pytest.raises(UserError, match="--plan_tolerance=5 is for a planned length; give --plan_length"):
        decoding.configured(facts, DecodeConfig(plan_tolerance=5), {"plan_tolerance"})
    facts["decode"] = DecodeConfig(plan_length=20)
    assert decoding.configured(facts, DecodeConfig(plan_tolerance=5), {"plan_tolerance"}).plan_length == 20


def test_aims_are_met_or_fallen_short_of():
    code = {"compliance": 0.9, "least_class": 0.7, "perplexity_ratio": 1.0, "distinct_2_ratio": 0.9}
    aims = control._aims({"codes": {"tone": code}, "length": {"share": 0.99}})
    assert [aim["met"] for aim in aims] == [True, False, True, False, True]
