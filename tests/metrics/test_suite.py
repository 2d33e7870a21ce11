import json

import pytest

from rgjax.errors import UserError
from rgjax.metrics import suite

EXAMPLES = [
    {
        "item": {"title": f"Film {i}", "attributes": {"genre": ["war", f"kind{i % 3}"]}},
        "history": [{"title": f"Old film {i}", "attributes": {"genre": "war"}}],
        "reason": f'You liked "Old film {i}", so Film {i} about war is for you.',
    }
    for i in range(12)
]
CHINESE = [{"item": {"attributes": {"材质": v}}, "reason": f"面料是{v}，穿着舒适。"} for v in ("棉", "麻", "牛仔布", "真丝")]
REFERENCES = [e["reason"] for e in EXAMPLES]
OPTIONS = dict(max_words=20, resamples=200)


@pytest.mark.parametrize("examples", [EXAMPLES, CHINESE])
def test_a_perfect_system(examples):
    texts = [e["reason"] for e in examples]
    scores = suite.evaluate_reasons(examples, texts, **OPTIONS)
    assert set(scores) <= set(suite.definitions())
    perfect = [name for name in scores if name.startswith(("bleu", "rouge", "chrf", "chatglm"))]
    assert len(perfect) == (8 if examples is EXAMPLES else 19)
    assert all(scores[name]["low"] == pytest.approx(100) for name in perfect)
    assert scores["usr"]["value"] == scores["fmr"]["value"] == 1
    for score in scores.values():
        assert score["low"] <= score["value"] + 1e-9 and score["value"] <= score["high"] + 1e-9
    json.dumps(scores, allow_nan=False)


def test_floors_stand_beside_the_system():
    results = suite.with_floors(EXAMPLES, REFERENCES, EXAMPLES[:6], **OPTIONS)
    assert set(results["floors"]) == {"random", "template", "retrieval", "reference"}
    assert results["language"] == "en" and results["examples"] == 12
    assert results["system"]["bleu_4"]["value"] > results["floors"]["random"]["bleu_4"]["value"]
    reference = results["floors"]["reference"]
    assert "bleu_4" not in reference and "fmr" not in reference
    assert reference["history_mention"] == results["system"]["history_mention"]
    json.dumps(results, allow_nan=False)
    assert results == suite.with_floors(EXAMPLES, REFERENCES, EXAMPLES[:6], **OPTIONS)


def test_paired_systems():
    worse = [text.replace("You liked", "Watch").replace("war", "love") for text in REFERENCES]
    scores = suite.paired(EXAMPLES, REFERENCES, worse, **OPTIONS)
    assert scores["bleu_4"]["difference"] > 0 and scores["bleu_4"]["low"] > 0 and scores["bleu_4"]["p"] < 0.02
    same = suite.paired(EXAMPLES, worse, worse, **OPTIONS)
    assert all(score["difference"] in (0, None) and score["p"] in (1, None) for score in same.values())


def test_tables_name_every_metric_and_line_up():
    floors = suite.with_floors(EXAMPLES, REFERENCES, EXAMPLES[:6], **OPTIONS)
    for results in (floors, floors["system"], suite.paired(EXAMPLES, REFERENCES, REFERENCES, **OPTIONS)):
        lines = suite.table(results).splitlines()
        assert len({len(line) for line in lines}) == 1
        assert all(any(line.startswith(name + " ") for line in lines) for name in floors["system"])


def test_two_languages_are_scored_apart():
    chinese = [{"item": {"attributes": {"材质": v}}, "reason": f"面料是{v}，穿着舒适。"} for v in "棉麻丝绒毛皮"]
    mixed = [e for pair in zip(EXAMPLES, chinese, strict=False) for e in pair] + EXAMPLES[6:]
    texts = [e["reason"][:-2] for e in mixed]
    results = suite.with_floors(mixed, texts, mixed, **OPTIONS)
    (other,) = results["others"]
    for part, own in ((results, EXAMPLES), (other, chinese)):
        alone = suite.with_floors(own, [e["reason"][:-2] for e in own], own, **OPTIONS)
        assert {key: value for key, value in part.items() if key != "others"} == alone
    assert (results["language"], results["examples"], other["language"], other["examples"]) == ("en", 12, "zh", 6)
    shown = suite.table(results)
    assert shown.startswith("English, 12 examples\nmetric") and "\n\nChinese, 6 examples\nmetric" in shown
    for part in (results, other):
        assert all(f"\n{name} " in shown for name in part["system"])
    assert set(suite.paired(mixed, texts, texts, **OPTIONS)) == set(results["system"])


def test_the_language_is_that_of_most_examples():
    few = CHINESE + EXAMPLES[:3]  # the English ones hold most letters, but no language has enough for a table of its own
    results = suite.with_floors(few, [e["reason"] for e in few], few, **OPTIONS)
    assert suite.detect_language(few) == results["language"] == "zh" and "others" not in results and results["examples"] == 7
    bare = [{"item": {"title": "LED 2000", "attributes": {"类别": "台灯", "颜色": "暖白色"}}}]
    assert suite.detect_language(bare) == "zh"


def test_without_references_only_the_reference_free_metrics_remain():
    bare = [{key: value for key, value in e.items() if key != "reason"} for e in EXAMPLES]
    scores = suite.evaluate_reasons(bare, REFERENCES, **OPTIONS)
    assert "bleu_4" not in scores and "fmr" not in scores and scores["history_mention"]["value"] == 100
    assert "reference" not in suite.with_floors(bare, REFERENCES, EXAMPLES, **OPTIONS)["floors"]


def test_mistakes_are_told_in_one_sentence():
    with pytest.raises(UserError, match="11 outputs for 12 examples"):
        suite.evaluate_reasons(EXAMPLES, REFERENCES[1:], **OPTIONS)
    with pytest.raises(UserError, match="no examples"):
        suite.evaluate_reasons([], [], **OPTIONS)
    with pytest.raises(UserError, match="Example 1 has no reference"):
        suite.evaluate_reasons([EXAMPLES[0] | {"reason": ""}, EXAMPLES[1]], ["a", "b"], **OPTIONS)


def test_empty_outputs_are_scored_not_refused():
    scores = suite.evaluate_reasons(EXAMPLES, [""] * 12, **OPTIONS)
    assert scores["bleu_4"]["value"] == scores["history_mention"]["value"] == 0 and scores["invented_quotes"]["value"] is None
