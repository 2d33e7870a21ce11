"""Taking turns, ratios of pairs and counts, against what is written out here."""

import time

import numpy as np
import pytest

from profiling import bench, peer_input
from rgjax.errors import UserError
from rgjax.tasks.reason import ReasonTask


def test_sides_take_turns_and_none_is_always_first():
    called = []
    sides = {name: lambda name=name: called.append(name) for name in "abc"}
    found = bench.take_turns(sides, 4, before=lambda name: called.append(f"<{name}"), after=lambda name: called.append(f"{name}>"))
    order = "abc" + "abc" + "cba" + "bca" + "acb"  # the first round is the first calls
    assert called == [step for name in order for step in (f"<{name}", name, f"{name}>")]
    assert set(found) == set("abc") and all(len(f["rounds"]) == 4 for f in found.values())


def test_what_is_before_and_after_a_call_is_not_timed():
    found = bench.take_turns({"a": lambda: None}, 3, before=lambda _: time.sleep(0.05), after=lambda _: time.sleep(0.05))
    assert found["a"]["slowest"] < 0.05


def test_a_ratio_is_of_pairs_not_of_medians():
    ours, peer = [1.0, 10.0, 2.0], [3.0, 10.0, 4.0]  # a busy second round; the medians' ratio would be 4 / 2
    assert bench.ratio(ours, peer) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
    assert bench.ratio([1.0, 4.0, 4.0], [1.0, 1.0, 4.0]) == {"median": 1.0, "lowest": 0.25, "highest": 1.0}
    assert bench.ratio(ours, [9.0, 1.0, 8.0], paired=False) == {"of_medians": 4.0}
    assert "8.00 (of the medians" in bench.told({"of_medians": 8.0}) and bench.told(bench.ratio(ours, peer)) == "2.00 (1.00 to 3.00)"
    assert bench.spread([3.0, 1.0, 2.0]) == {"seconds": 2.0, "fastest": 1.0, "slowest": 3.0}


def test_a_missing_library_is_told_with_how_to_install_it():
    with pytest.raises(UserError, match=r"no_such_library is not installed.*pip install 'torch==2.13.0' -e '.\[parity\]'"):
        bench.need("jax", "no_such_library")
    bench.need("jax")


@pytest.mark.parametrize("packing", [True, False])
def test_the_peer_gets_the_very_examples_of_our_batches(packing, tokenizer, dataset):
    from rgjax.config import InputConfig, ModelConfig

    config = InputConfig(length=400, target_length=120, batch_size=4, packing=packing, copy_slots="none")
    task = ReasonTask(tokenizer, config, ModelConfig())
    stream = task.training_data(dataset, 0)
    batches = [next(stream) for _ in range(3)]
    stream.close()
    found = peer_input.unpacked(batches)
    rendered = [task.template.render(example) for example in dataset.examples("train")]
    whole = {(tuple(r.prompt_ids), tuple(r.target_ids)) for r in rendered}
    for example in found:
        cut = example["labels"].index(next(i for i in example["labels"] if i != peer_input.IGNORED))
        assert (tuple(example["input_ids"][:cut]), tuple(example["labels"][cut:])) in whole
        assert example["input_ids"][cut:] == example["labels"][cut:]
    alone = peer_input.training_examples(task, dataset, 0, 10**6)
    assert len(alone) == len(rendered) and all(example in alone for example in found)
    counts = [bench.held(batch) for batch in batches]
    total = {name: sum(c[name] for c in counts) for name in counts[0]}
    assert total["examples"] == len(found) and (len(found) > 12) == packing
    assert total["target_tokens"] == sum(i != peer_input.IGNORED for e in found for i in e["labels"])
    assert total["tokens"] == sum(len(e["input_ids"]) - 1 for e in found)
    assert total["slots"] == sum(batch["tokens"].size for batch in batches)


def test_one_target_more_is_noticed(tokenizer, dataset):
    from rgjax.config import InputConfig, ModelConfig

    config = InputConfig(length=192, target_length=64, batch_size=4)
    stream = ReasonTask(tokenizer, config, ModelConfig()).training_data(dataset, 0)
    batch = next(stream)
    stream.close()
    more = dict(batch, weights=batch["weights"].copy())
    row, column = np.argwhere((batch["weights"] == 0) & (batch["segment_ids"] > 0))[0]
    more["weights"][row, column] = 1
    assert bench.held(more)["target_tokens"] == bench.held(batch)["target_tokens"] + 1
    assert peer_input.unpacked([more]) != peer_input.unpacked([batch])
