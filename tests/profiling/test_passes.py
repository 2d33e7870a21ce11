"""profiling.passes: few batches that are like all of them, where the first ones are not."""

import numpy as np
import pytest

from profiling import passes, peer_input
from profiling.passes import fair_sample, sums


def counts(lengths, rows):
    """Of batches of so many examples in this order, a third of each being targets."""
    whole = [lengths[n : n + rows] for n in range(0, len(lengths) - rows + 1, rows)]
    return [{"examples": rows, "tokens": sum(w), "target_tokens": sum(w) // 3, "slots": rows * max(w)} for w in whole]


@pytest.mark.parametrize("examples", [40, 96, 200])
def test_a_pass_of_a_sorted_order_is_like_its_epoch(examples):
    torch = pytest.importorskip("torch")
    sampler = pytest.importorskip("transformers.trainer_pt_utils").LengthGroupedSampler
    lengths, rows = np.random.default_rng(0).gamma(2, 60, 3000).astype(int) + 8, 16
    order = list(sampler(rows, lengths=lengths.tolist(), generator=torch.Generator().manual_seed(0)))
    epoch = counts(lengths[order].tolist(), rows)
    chosen = fair_sample(epoch, examples, 0)
    whole, part, first = sums(epoch), sums([epoch[i] for i in chosen]), sums(epoch[: len(chosen)])
    assert examples <= part["examples"] < examples + rows and len(set(chosen)) == len(chosen)
    assert part["mean_tokens"] == pytest.approx(whole["mean_tokens"], rel=0.05)
    assert part["slots"] / part["examples"] == pytest.approx(whole["slots"] / whole["examples"], rel=0.05)
    assert first["mean_tokens"] > 1.5 * whole["mean_tokens"]
    assert fair_sample(epoch, examples, 0) == chosen  # in another process too
    sorted_together = peer_input.mega_batch(len(lengths), rows)
    widths = [lengths[order[n : n + rows]].max() for n in range(rows, rows * sorted_together, rows)]
    assert sorted_together == 3000 // 64 and widths == sorted(widths, reverse=True)
    assert lengths[order[rows * sorted_together : rows * (sorted_together + 1)]].max() > widths[-1]


def test_batches_of_few_examples_make_up_for_it_in_number():
    epoch = [{"examples": n, "tokens": 10 * n, "target_tokens": 5 * n, "slots": 40} for n in (1, 1, 1, 3)]
    assert fair_sample(epoch, 6, 0) == [0, 1, 2, 3]


def test_what_a_pass_holds():
    epoch = [{"n": n} for n in (10, 20, 30)]
    count = lambda b: {"examples": 1, "tokens": b["n"], "target_tokens": b["n"] // 2, "slots": 40}
    batches, told = passes.drawn(epoch, count, 1, 0)
    assert batches == [epoch[1]]  # the middle one has the means
    assert told["mean_tokens"] == told["epoch"]["mean_tokens"] == 20 and told["padded_share"] == told["epoch"]["padded_share"] == 0.5
    assert told["epoch"]["steps"] == 3 and told["steps"] == 1
