"""Examples of earlier tasks mixed into the training stream: their share, their order, several processes, and exact resume."""

import collections
import itertools

import numpy as np
import pytest
from absl import flags
from test_pipeline import both_layouts, config_of, key_of, same, segments, take, truth

from rgjax.config import InputConfig, PrepareConfig
from rgjax.data import choices, pipeline
from rgjax.data.dataset import Dataset, Joined
from rgjax.data.prepare import prepare
from rgjax.data.template import Template
from rgjax.errors import UserError


@pytest.fixture(scope="session")
def earlier(dataset, tmp_path_factory):
    """Two datasets of earlier tasks, of unlike sizes, with the vocabulary of the present one."""
    made, small = [], {"demo_users": 40, "demo_items": 30, "val_share": 0.1}
    for seed, count in ((7, 60), (8, 30)):
        folder = tmp_path_factory.mktemp("earlier") / f"shop{seed}"
        own = {"seed": seed, "demo_examples": count, "tokenizer": str(dataset.tokenizer_folder), "output": str(folder)}
        prepare(PrepareConfig(layout="demo", **small, **own))
        made.append(Dataset.open(folder))
    return made


def batches(dataset, tokenizer, config, replay, seed=0, **where):
    template = Template(tokenizer, config)
    return iter(pipeline.train_batches(dataset, template, config, "causal", seed=seed, replay=replay, **where))


@both_layouts
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_kept_and_all_earlier_examples_come_equally_often(dataset, earlier, tokenizer, layout, share):
    config = config_of(layout, replay_share=share)
    new = set(truth(dataset, tokenizer, config))
    old = {key for d in earlier for key in truth(d, tokenizer, config)}
    assert len(old) == sum(d.count("train") for d in earlier) and not new & old
    seen = collections.Counter()
    for batch in itertools.islice(batches(dataset, tokenizer, config, earlier), 1000 if layout == "bucketed" else 600):
        seen.update(key_of(found) for found in segments(batch))
    assert set(seen) == new | old
    replayed, total = sum(seen[key] for key in old), sum(seen.values())
    assert total > 2000 and replayed / total == pytest.approx(share, abs=0.01)
    for group in (new, old):
        mean = sum(seen[key] for key in group) / len(group)
        assert all(abs(seen[key] - mean) <= 0.1 * mean + 3 for key in group)


@both_layouts
@pytest.mark.parametrize("workers", (0, 2))
def test_a_restored_iterator_goes_on_alike(dataset, earlier, tokenizer, layout, workers):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags
    config = config_of(layout, workers=workers, control_dropout=0.3, replay_share=0.3)
    first = batches(dataset, tokenizer, config, earlier)
    take(first, 37)
    state = first.get_state()
    wanted = take(first, 60)
    second = batches(dataset, tokenizer, config, earlier)
    second.set_state(state)
    assert all(map(same, wanted, take(second, 60)))


def test_bucketed_batches_of_two_processes_are_those_of_one(dataset, earlier, tokenizer):
    config = config_of("bucketed", replay_share=0.4)
    whole = batches(dataset, tokenizer, config, earlier)
    halves = [batches(dataset, tokenizer, config, earlier, process=p, processes=2) for p in range(2)]
    for one, *parts in itertools.islice(zip(whole, *halves, strict=False), 60):
        for name in one:
            assert np.array_equal(one[name], np.concatenate([part[name] for part in parts]))


def test_packed_rows_of_two_processes_mix_alike_and_share_out_an_epoch(dataset, earlier, tokenizer, monkeypatch):
    monkeypatch.setattr(pipeline, "PACKING_BINS", 1)  # rows in the order of the examples
    config, shares = config_of("packed", replay_share=0.5, streams=2), []
    new = truth(dataset, tokenizer, config)
    half = len(new) // 2
    for process in range(2):
        stream = batches(dataset, tokenizer, config, earlier, process=process, processes=2)
        keys = [key_of(found) for batch in itertools.islice(stream, half) for found in segments(batch)]
        own = [new[key] for key in keys if key in new]
        assert sum(key not in new for key in keys[:100]) == 50
        shares.append(set(own[:half]))
    assert not shares[0] & shares[1] and len(shares[0] | shares[1]) == 2 * half


@both_layouts
def test_without_replay_nothing_changes_and_the_share_decides(dataset, earlier, tokenizer, layout):
    plain, unused = (take(batches(dataset, tokenizer, config_of(layout, replay_share=s), ()), 6) for s in (0.1, 0.5))
    assert all(map(same, plain, unused))
    few, many = (take(batches(dataset, tokenizer, config_of(layout, replay_share=s), earlier), 6) for s in (0.1, 0.5))
    assert not all(map(same, few, many)) and not all(map(same, plain, few))


def test_joined_sources_count_through(earlier):
    sources = [d.source("train") for d in earlier]
    joined = Joined(sources)
    assert [joined[i] for i in range(len(joined))] == [e for d in earlier for e in d.examples("train")]
    assert "0x" not in repr(joined)  # grain compares it when it restores


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UserError, match="--replay_share=0.5 is given and --replay names no dataset"):
        choices.settled(InputConfig(replay_share=0.5), {"replay_share"})
    choices.settled(InputConfig(replay="a", replay_share=0.5), {"replay_share", "replay"})
