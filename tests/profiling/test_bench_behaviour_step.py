"""profiling.behaviour_step at a tiny size: both sides have the same loss over the same events."""

import pytest

pytestmark = pytest.mark.parity


def test_both_sides_do_equal_work(benchmark, sound):
    pytest.importorskip("torch")
    small = ("--layers=1", "--width=16", "--heads=2", "--window=100", "--row_length=200", "--items=50", "--batch_size=8", "--batches=2", "--rounds=3")
    told, _ = benchmark("behaviour_step", *small)
    sound(told, "ours", "peer")
    assert told["events"] > 100 and told["filled"][0] > told["filled"][1] and told["loss"] > 3


def test_the_sides_are_compared_before_they_are_timed(monkeypatch):
    pytest.importorskip("torch")
    import numpy as np

    from profiling import behaviour_step
    from rgjax.errors import UserError

    targets = np.array([[1, -100]])
    ours = lambda weights, batch: {"nll": 2.0, "tokens": 1.0}
    import torch

    with pytest.raises(UserError, match="differ"):
        behaviour_step.check(ours, [{}], {}, [(None, torch.as_tensor(targets))], lambda *_: 2.1)
    assert behaviour_step.check(ours, [{}], {}, [(None, torch.as_tensor(targets))], lambda *_: 2.0) == 2.0
