"""profiling.adversarial_step at a tiny size: both sides agree on weights that are the same, and are timed."""

import pytest

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("estimator", ["reinforce", "gumbel"])
def test_both_sides_take_turns(benchmark, sound, estimator):
    pytest.importorskip("torch")
    flags = ("--texts=4", "--length=6", "--vocab_size=30", "--hidden=8", "--completions=2", "--d_steps=1", "--rounds=3")
    told, _ = benchmark("adversarial_step", *flags, f"--estimator={estimator}", "--d_width=8", "--d_filters=3", "--d_windows=2,3")
    sound(told, "ours", "peer")
    assert told["shape"]["estimator"] == estimator
    assert told["shape"].get("completions") == (2 if estimator == "reinforce" else None)


def test_what_the_other_side_lacks_is_refused(benchmark):
    pytest.importorskip("torch")
    assert "--gan_loss=hinge is not what the torch side does" in benchmark("adversarial_step", "--gan_loss=hinge", code=2)[1]
