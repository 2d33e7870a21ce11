"""FMR, FCR and DIV against the published formulas written out as loops."""

from itertools import combinations

import pytest

from rgjax.metrics import features


def example(reason, values, history=()):
    return {
        "item": {"attributes": {"tag": list(values)}},
        "history": [{"attributes": {"tag": v}} for v in history],
        "reason": reason,
    }


EXAMPLES = [
    example("A War Drama.", ["Drama", "War"]),
    example("Slow science fiction", ["Science Fiction", "Science"], ["Western"]),
    example("Nothing here", ["Comedy"]),
    example("Comedy!", ["Comedy"]),
]
OUTPUTS = ["drama and war and comedy", "science fiction", "warfare is no war film but a comedy", "a drama"]
FOUND = [{"drama", "war", "comedy"}, {"science fiction", "science"}, {"war", "comedy"}, {"drama"}]


def test_the_published_definitions():
    scores = features.metrics(EXAMPLES, OUTPUTS, "en")
    # f_i: war (named first), science fiction (longer at a tie), none (left out), comedy
    assert scores["fmr"].value == pytest.approx((1 + 1 + 0) / 3)
    everything = {"drama", "war", "science fiction", "science", "western", "comedy"}
    assert scores["fcr"].value == pytest.approx(len(set().union(*FOUND)) / len(everything))
    n = len(FOUND)
    assert scores["div"].value == pytest.approx(2 / (n * (n - 1)) * sum(len(a & b) for a, b in combinations(FOUND, 2)))


def test_leave_one_out_equals_recomputing():
    coverage, spread = features.coverage(FOUND, 6), features.diversity(FOUND)
    for i in range(len(FOUND)):
        rest = FOUND[:i] + FOUND[i + 1 :]
        assert coverage.without[i] == pytest.approx(len(set().union(*rest)) / 6)
        assert spread.without[i] == pytest.approx(features.diversity(rest).value)


def test_chinese_features_are_found_inside_running_text():
    scores = features.metrics([example("宽松的牛仔布", ["牛仔布", "宽松"])], ["牛仔布做的"], "zh")
    assert scores["fmr"].value == 0  # the reference names 宽松 first
    assert scores["fcr"].value == 0.5


def test_without_attribute_values_there_are_no_feature_metrics():
    assert features.metrics([{"item": {}, "reason": "x"}], ["y"], "en") == {}
