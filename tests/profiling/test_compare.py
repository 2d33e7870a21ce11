"""profiling.compare: medians of resamples against their exact distribution, intervals that cover, and files that are refused."""

import collections
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from environment import ROOT

from profiling import compare


@pytest.mark.parametrize("rounds", [[3.0, 1.0, 10.0], [4.0, 1.0, 2.0, 8.0]])
def test_resampled_medians_have_their_exact_distribution(rounds):
    exact = collections.Counter(float(np.median(drawn)) for drawn in itertools.product(rounds, repeat=len(rounds)))
    drawn, n = compare.medians(rounds, 40_000, 0), len(rounds) ** len(rounds)
    found = collections.Counter(drawn.tolist())
    assert found.keys() <= exact.keys()
    for value, count in exact.items():
        assert found[value] / 40_000 == pytest.approx(count / n, abs=0.012)  # five standard errors


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        a, b = (np.exp(rng.normal(np.log(middle), 0.1, 15)).tolist() for middle in (1.0, 1.3))
        found = compare.ratio(a, b, 500)
        covered += found["low"] <= 1.3 <= found["high"]
    assert 0.88 <= covered / 200 <= 1.0


def test_what_both_hold_is_compared():
    a = {"rounds": [1.0, 2.0, 3.0], "device": "x", "meshes": [{"mesh": "data:8", "flops": 10}, {"mesh": "fsdp:8", "flops": 30}], "n": 1, "m": 0}
    b = {"rounds": [2.0, 4.0, 6.0], "device": "y", "meshes": [{"mesh": "fsdp:8", "flops": 15}, {"mesh": "data:8", "flops": 10}], "n": True, "m": 5}
    rounds, single = compare.compared(a, b, 1000)
    assert rounds["rounds"]["ratio"] == 2 and rounds["rounds"]["low"] < 2 < rounds["rounds"]["high"]
    assert single == {"meshes[fsdp:8].flops": {"a": 30, "b": 15, "ratio": 0.5}, "m": {"a": 0, "b": 5, "ratio": None}}


def call(*arguments):
    return subprocess.run([sys.executable, "-m", "profiling.compare", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_two_files_are_read_as_commands_leave_them(tmp_path):
    paths = [tmp_path / name for name in ("a.json", "b,b.txt")]
    paths[0].write_text(json.dumps({"rounds": {"step": [1.0, 1.1, 0.9, 1.0]}, "device": "d"}, indent=1))
    paths[1].write_text("a table\n" + json.dumps({"rounds": {"step": [0.5, 0.55, 0.45, 0.5]}, "device": "e"}) + "\n")
    done = call(*paths)
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and told["rounds"]["rounds.step"]["ratio"] == pytest.approx(0.5) and told["unlike"] == ["device"]
    assert "faster" in done.stdout and "note: device is not the same" in done.stdout
    assert json.loads(call(f"--files={paths[0]}", f"--files={paths[0]}").stdout.splitlines()[-1])["numbers"] == {}


@pytest.mark.parametrize(
    "texts, words",
    [(["{}"], "1 results were given"), (["{}", "no json"], "does not end with a JSON object"), (['{"a": 1}', '{"b": 1}'], "share no figure")],
)
def test_what_can_not_be_compared_is_refused(texts, words, tmp_path):
    paths = [tmp_path / str(k) for k in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    done = call(*paths)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
