"""The independent judge: the minimum that scikit-learn finds, and what it tells apart."""

import os
import subprocess
import sys

import numpy as np
import pytest

from rgjax.metrics import judge as judge_lib
from rgjax.metrics.judge import Judge, confusion

TEXTS = [f"{a} lamp number {i % 7}" for i, a in enumerate(["cheap", "durable", "elegant"] * 8)] + ["便宜的灯"] * 3 + ["外观很好"] * 4
LABELS = ["price", "quality", "design"] * 8 + ["price"] * 3 + ["design"] * 4


def test_words_of_either_language_decide():
    found = Judge.fit(TEXTS, LABELS)
    assert found.judge(["A cheap, cheap thing", "is it durable", "很便宜", "ELEGANT", "外观"]) == ["price", "quality", "price", "design", "design"]
    assert found.judge([]) == []


def test_the_weights_are_those_of_a_balanced_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    found = Judge.fit(TEXTS, LABELS)
    rows = judge_lib._rows([judge_lib.words(t) for t in TEXTS], found.index, found.telling)
    # C = 1 / (penalty * texts) as the weights of the balanced texts sum to their number there, to 1 here; the bias is a column like any other
    other = linear_model.LogisticRegression(
        C=1 / (judge_lib.PENALTY * len(TEXTS)), class_weight="balanced", fit_intercept=False, max_iter=5000, tol=1e-8
    ).fit(rows.tocsr(), LABELS)
    ours = rows @ found.weights
    theirs = other.decision_function(rows.tocsr())
    assert list(other.classes_) == found.labels
    share = lambda x: np.exp(x - np.logaddexp.reduce(x, axis=1, keepdims=True))
    np.testing.assert_allclose(share(ours), share(theirs), atol=2e-3)


def test_words_weigh_what_they_tell():
    """By hand: "cheap" is in 8 of the 11 texts about price and in none of the 20 others, a number in about as many of each."""
    found = Judge.fit(TEXTS, LABELS)
    assert found.telling[found.index["cheap"]] == pytest.approx(np.log((9 / 12) / (1 / 21)))
    assert found.telling[found.index["lamp"]] < 0.5 < found.telling[found.index["便宜"]]
    assert "cheap lamp" not in found.index and "宜的" in found.index


def test_a_rare_class_is_found_among_long_texts():
    """Texts of sixty common words, of which one tells the class: 12 of 400 hold "cosy"."""
    rng = np.random.default_rng(0)
    common = [f"w{i}" for i in "abcdefghijklmnopqrstuvwxyz"]

    def texts(n, word):
        return [" ".join([*rng.permutation([*rng.choice(common, 59), word])]) for _ in range(n)]

    found = Judge.fit(texts(388, "grand") + texts(12, "cosy"), ["big"] * 388 + ["warm"] * 12)
    assert found.judge(texts(50, "cosy")) == ["warm"] * 50 and found.judge(texts(50, "grand")) == ["big"] * 50


def test_the_confusion_matrix_counts_pairs():
    assert confusion(["a", "a", "b", "c"], ["a", "b", "b", "a"], ["a", "b", "c"]) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_every_process_learns_the_same():
    """Sets of texts are ordered anew in each."""
    code = f"from rgjax.metrics.judge import Judge; print(Judge.fit({TEXTS!r}, {LABELS!r}).weights.tobytes().hex())"
    found = {
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in "012"
    }
    assert len(found) == 1
