"""Intervals and tests against closed forms, brute-force resampling and published statistics."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rgjax.metrics import bootstrap, diversity, language, overlap


def test_weights_are_resamples_and_repeat_with_the_seed():
    first = np.concatenate(list(bootstrap.resample_weights(7, 50, seed=3)))
    assert first.shape == (50, 7) and (first.sum(1) == 7).all()
    assert (first == np.concatenate(list(bootstrap.resample_weights(7, 50, seed=3)))).all()
    assert (first != np.concatenate(list(bootstrap.resample_weights(7, 50, seed=4)))).any()


def test_weights_are_the_same_law_in_small_blocks(monkeypatch):
    whole = np.concatenate(list(bootstrap.resample_weights(5, 20, seed=0)))
    monkeypatch.setattr(bootstrap, "_CELLS", 15)
    blocks = list(bootstrap.resample_weights(5, 20, seed=0))
    assert len(blocks) == 7 and (np.concatenate(blocks) == whole).all()


def test_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(10, 2, 2000)
    score = bootstrap.intervals({"m": bootstrap.mean(values)}, 4000)["m"]
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert score["value"] == pytest.approx(values.mean())
    assert score["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert score["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=300)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    ours = bootstrap.intervals({"m": bootstrap.mean(values)}, 5000)["m"]
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_corpus_bleu_is_resampled_as_a_corpus():
    texts = [("a b c d e", "a b c d f"), ("c d e f", "c d e f g"), ("x y z w", "x y z w")]
    outputs, references = zip(*[(language.words(a), language.words(b)) for a, b in texts], strict=False)
    metric = overlap.bleu(overlap.bleu_statistics(outputs, references), 4)
    drawn = bootstrap.replicates({"b": metric}, 20, seed=0)["b"]
    for value, weights in zip(drawn, np.concatenate(list(bootstrap.resample_weights(3, 20, seed=0))), strict=False):
        picked = np.repeat(np.arange(3), weights.astype(int))
        again = overlap.bleu_statistics([outputs[i] for i in picked], [references[i] for i in picked])
        assert value == pytest.approx(overlap.bleu(again, 4).value)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(2).normal(5, 1, 100)
    metric = bootstrap.LeaveOneOut(values.mean(), (values.sum() - values) / 99)
    score = bootstrap.intervals({"m": metric}, 100)["m"]
    error = values.std(ddof=1) / 10
    assert (score["low"], score["high"]) == pytest.approx((values.mean() - 1.959964 * error, values.mean() + 1.959964 * error))


def test_intervals_do_not_leave_the_scale():
    score = bootstrap.intervals({"usr": diversity.unique_sentence_ratio(["a", "a", "b", "c", "d"])}, 100)["usr"]
    assert 0 <= score["low"] < score["value"] < score["high"] <= 1


def test_undefined_metrics_are_none():
    scores = bootstrap.intervals({"r": bootstrap.ratio([0, 0], [0, 0]), "d": diversity.distinct([["a"], ["b"]], 2)}, 100)
    assert scores["r"] == scores["d"] == {"value": None, "low": None, "high": None}


def test_examples_without_a_value_are_left_out_of_a_mean():
    assert bootstrap.mean([1.0, math.nan, 0.0], 100).value == 50


def test_paired_finds_a_difference_that_two_intervals_hide():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, 500)
    a, b = bootstrap.mean(common + 0.5 + rng.normal(0, 1, 500)), bootstrap.mean(common)
    alone = bootstrap.intervals({"a": a, "b": b}, 500)
    assert alone["a"]["low"] < alone["b"]["high"]
    score = bootstrap.paired({"m": a}, {"m": b}, 500)["m"]
    assert score["low"] > 0 and score["p"] == pytest.approx(2 / 501)
    assert score["difference"] == pytest.approx(a.value - b.value)
    mirrored = bootstrap.paired({"m": b}, {"m": a}, 500)["m"]
    assert mirrored["difference"] == pytest.approx(-score["difference"]) and mirrored["p"] == score["p"]


@pytest.mark.parametrize("metric", [bootstrap.mean([1.0, 2.0, 4.0]), diversity.unique_sentence_ratio(["a", "a", "b"])])
def test_a_system_does_not_differ_from_itself(metric):
    score = bootstrap.paired({"m": metric}, {"m": metric}, 200)["m"]
    assert score["difference"] == score["low"] == score["high"] == 0 and score["p"] == 1


def test_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(0)
    ps = []
    for seed in range(200):
        a, b = rng.normal(size=(2, 60))
        ps.append(bootstrap.paired({"m": bootstrap.mean(a)}, {"m": bootstrap.mean(b)}, 200, seed)["m"]["p"])
    assert scipy_stats.kstest(ps, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(ps) < 0.05) < 0.1
