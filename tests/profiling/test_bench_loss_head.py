"""profiling.loss_head at a tiny size: three ways to the same loss, which is that of a loop over tokens."""

import numpy as np
import pytest

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("share, positions", [(1.0, 40), (0.3, 12)])
def test_all_sides_compute_the_loss_of_the_targets(share, positions, benchmark, sound):
    pytest.importorskip("torch")
    flags = ("--rows=2", "--length=40", "--width=16", "--vocab_size=50", "--rounds=3", f"--target_share={share}")
    told, _ = benchmark("loss_head", *flags)
    sound(told, "ours", "peer", "plain JAX")
    rng, total = np.random.default_rng(0), 0.0
    hidden, head = rng.standard_normal((2, 40, 16), np.float32), rng.standard_normal((50, 16), np.float32) / 4
    targets = rng.integers(0, 50, (2, 40))
    for b in range(2):
        for t in range(40 - positions, 40):
            scores = [float(np.dot(hidden[b, t].astype(float), row)) for row in head]
            total += np.log(np.sum(np.exp(scores))) - scores[targets[b, t]]
    assert told["losses"] == pytest.approx(dict.fromkeys(("ours", "plain JAX", "peer"), total), rel=1e-5)
    assert told["sides"]["ours"]["temporary_bytes"] > 0
