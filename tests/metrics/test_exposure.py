"""Exposure, group gaps and calibration of probabilities against loops over their definitions."""

import math

import numpy as np
import pytest

from rgjax.errors import UserError
from rgjax.metrics import exposure

LISTS = np.array([[2, 0, 1], [2, 3, -1]])
GAIN = [1 / math.log2(1 + r) for r in range(1, 6)]


def test_exposure_and_ratios_by_hand():
    found = exposure.exposure(LISTS, 5)
    assert found == pytest.approx([GAIN[1], GAIN[2], 2 * GAIN[0], GAIN[1], 0])
    first, second = np.array([1, 0, 1, 0, 0], bool), np.array([0, 1, 0, 1, 1], bool)
    means = (GAIN[1] + 2) / 2, (GAIN[2] + GAIN[1]) / 3
    assert exposure.exposure_ratio(found, first, second) == pytest.approx(means[0] / means[1])
    due = np.array([1, 2, 3, 4, 0.0])
    assert exposure.disparate_treatment(found, due, first, second) == pytest.approx((means[0] / 2) / (means[1] / 2))
    assert exposure.disparate_treatment(3 * due, due, first, second) == pytest.approx(1.0)
    assert math.isnan(exposure.disparate_treatment(found, np.zeros(5), first, second))
    with pytest.raises(UserError, match="empty"):
        exposure.exposure_ratio(found, first, np.zeros(5, bool))


def test_group_gap():
    assert exposure.group_gap([0.1, 0.3, 0.5, np.nan, np.nan], ["f", "f", "m", "m", "x"]) == pytest.approx(0.5 - 0.2)
    assert math.isnan(exposure.group_gap([np.nan], ["f"]))


def test_probabilities():
    rng = np.random.default_rng(0)
    told, labels = rng.random(500), rng.random(500) < 0.4
    assert exposure.brier(told, labels) == pytest.approx(sum((p - y) ** 2 for p, y in zip(told, labels.astype(float), strict=True)) / 500)
    expected = 0.0
    for b in range(10):
        own = [(p, y) for p, y in zip(told, labels, strict=True) if b / 10 < p <= (b + 1) / 10]
        expected += len(own) / 500 * abs(sum(p for p, _ in own) / len(own) - sum(y for _, y in own) / len(own)) if own else 0
    assert exposure.expected_calibration_error(told, labels, 10) == pytest.approx(expected)
    assert exposure.expected_calibration_error([0, 1, 1], [0, 1, 1]) == 0 and exposure.expected_calibration_error([1.0], [0]) == 1
    for wrong in ([1.2], [np.nan], []):
        with pytest.raises(UserError, match="between 0 and 1"):
            exposure.brier(wrong, np.zeros(len(wrong)))
