"""Batches: every example arrives whole and as often as it should, however rows are packed, bucketed, shared out or resumed."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from absl import flags

from rgjax.config import InputConfig
from rgjax.data import pipeline
from rgjax.data.template import Template
from rgjax.errors import UserError

LAYOUTS = {
    "packed": {"packing": True, "length": 256, "target_length": 96},
    "bucketed": {"packing": False, "length": 192, "target_length": 64, "buckets": "0.5,0.7,1"},
}
NAMES = ("tokens", "targets", "weights")
both_layouts = pytest.mark.parametrize("layout", LAYOUTS)
both_architectures = pytest.mark.parametrize("architecture", ("causal", "seq2seq"))


def config_of(layout, **changes):
    return InputConfig(**{"batch_size": 4, **LAYOUTS[layout], **changes})


def batches(dataset, tokenizer, config, architecture="causal", seed=0, **where):
    template = Template(tokenizer, config, architecture)
    return iter(pipeline.train_batches(dataset, template, config, architecture, seed=seed, **where))


def key_of(arrays):
    return tuple(sorted((name, tuple(np.asarray(values).tolist())) for name, values in arrays.items()))


def truth(dataset, tokenizer, config, split="train", architecture="causal"):
    """Every example of a split as the template alone renders it: (its arrays as a key) -> its number."""
    template = Template(tokenizer, config, architecture)
    made = [pipeline.features(template.render(e), architecture == "seq2seq", tokenizer.pad_id) for e in dataset.examples(split)]
    keys = {key_of(arrays): i for i, arrays in enumerate(made)}
    assert len(keys) == len(made)
    return keys


def segments(batch):
    """The examples of a batch, cut out by segment; checks what is said of each of them on the way."""
    encoder = "encoder_tokens" in batch
    for r in range(len(batch["tokens"])):
        ids = batch["segment_ids"][r]
        filled = np.count_nonzero(ids)
        assert (np.diff(ids[:filled]) >= 0).all() and (np.diff(ids[:filled]) <= 1).all() and (ids[filled:] == 0).all()
        assert not batch["weights"][r][ids == 0].any()
        for segment in range(1, ids.max(initial=0) + 1):
            here = ids == segment
            found = {name: batch[name][r][here] for name in NAMES}
            assert (batch["positions"][r][here] == np.arange(here.sum())).all()
            if encoder:
                there = batch["encoder_segment_ids"][r] == segment
                found["encoder_tokens"] = batch["encoder_tokens"][r][there]
                assert (batch["encoder_positions"][r][there] == np.arange(there.sum())).all()
            yield found


def numbers(batch, keys):
    """The numbers of a batch's examples; KeyError for one that is not exactly what the template renders."""
    return [keys[key_of(found)] for found in segments(batch)]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@both_layouts
@both_architectures
def test_every_example_arrives_whole_and_equally_often(dataset, tokenizer, layout, architecture):
    config = config_of(layout, streams=1)
    keys, seen = truth(dataset, tokenizer, config, architecture=architecture), collections.Counter()
    targets = {i: sum(dict(key)["weights"]) for key, i in keys.items()}
    stream = batches(dataset, tokenizer, config, architecture)
    a_stretch = pipeline.PACKING_BINS // 4 if layout == "packed" else len(keys) // 4
    for _ in range(5):
        for batch in itertools.islice(stream, a_stretch):
            found = numbers(batch, keys)
            seen.update(found)
            assert batch["weights"].sum() == sum(targets[i] for i in found)
        if layout == "packed":  # the bins were emptied: what has come is whole epochs and the beginning of one
            assert max(seen.values()) - min(seen[i] for i in keys.values()) <= 1
    if layout == "bucketed":  # each epoch leaves out less than a batch, another one each time
        assert sum(seen.values()) == 5 * (len(keys) // 4) * 4 and max(seen.values()) <= 5
        assert min(seen[i] for i in keys.values()) >= 3
    assert set(seen) == set(keys.values())


@both_architectures
def test_longer_rows_hold_the_same_examples_and_less_padding(dataset, tokenizer, architecture):
    """An example is cut to --length, however long the row is."""
    short = config_of("packed", length=160, target_length=64, decoder_length=160)
    long = dataclasses.replace(short, row_length=480, decoder_length=480)
    keys, filled = truth(dataset, tokenizer, short, architecture=architecture), {}
    name = "encoder_segment_ids" if architecture == "seq2seq" else "segment_ids"
    for config in (short, long):
        read = list(itertools.islice(batches(dataset, tokenizer, config, architecture), 100))
        assert all(keys[key_of(found)] >= 0 for batch in read[:20] for found in segments(batch))
        assert read[0][name].shape == (4, config.row_length or config.length)
        filled[config.row_length] = np.mean([(batch[name] > 0).mean() for batch in read])
    assert filled[480] > filled[0] + 0.01, filled
    rows = list(pipeline.eval_batches(dataset, "val", Template(tokenizer, long, architecture), long, architecture))
    assert sum(batch["segment_ids"].max(axis=1).sum() for batch in rows) == dataset.count("val") and rows[0][name].shape[1] == 480


def test_the_weights_are_the_reason_and_nothing_else(dataset, tokenizer):
    config = config_of("packed")
    template = Template(tokenizer, config)
    for example in itertools.islice(dataset.examples("train"), 10):
        rendered = template.render(example)
        made = pipeline.features(rendered, False, 0)
        assert made["targets"][made["weights"] == 1].tolist() == rendered.target_ids
        assert made["tokens"].tolist() == (rendered.prompt_ids + rendered.target_ids)[:-1]
        assert made["tokens"][1:].tolist() == made["targets"][:-1].tolist()
        encoded = pipeline.features(rendered, True, 7)
        assert encoded["tokens"].tolist() == [7, *rendered.target_ids[:-1]]
        assert encoded["encoder_tokens"].tolist() == rendered.prompt_ids


@both_layouts
def test_loss_on_all_weighs_every_token_of_the_example(dataset, tokenizer, layout):
    stream = batches(dataset, tokenizer, config_of(layout, loss_on="all"))
    read = list(itertools.islice(stream, 4))
    read += pipeline.eval_batches(dataset, "val", Template(tokenizer, config_of(layout)), config_of(layout, loss_on="all"), "causal", limit=2)
    for batch in read:
        assert np.array_equal(batch["weights"], (batch["segment_ids"] > 0).astype(np.int32))
        for found in segments(batch):  # each token is predicted from those before it, none across examples
            assert found["tokens"][1:].tolist() == found["targets"][:-1].tolist() and found["tokens"][0] == tokenizer.bos_id


def test_one_epoch_of_two_processes_is_disjoint_and_whole(dataset, tokenizer, monkeypatch):
    monkeypatch.setattr(pipeline, "PACKING_BINS", 1)  # rows in the order of the examples
    config = config_of("packed", streams=2)
    keys, shares = truth(dataset, tokenizer, config), []
    half = len(keys) // 2
    for process in range(2):
        stream = batches(dataset, tokenizer, config, process=process, processes=2)
        first = next(stream)
        assert len(first["tokens"]) == 2
        rest = (n for batch in itertools.chain([first], stream) for n in numbers(batch, keys))
        shares.append(set(itertools.islice(rest, half)))
    assert not shares[0] & shares[1]
    assert len(shares[0] | shares[1]) == half * 2


@pytest.mark.parametrize("architecture", ("causal", "seq2seq"))
def test_bucketed_batches_of_two_processes_are_those_of_one(dataset, tokenizer, architecture):
    config = config_of("bucketed", control_dropout=0.5)
    whole = batches(dataset, tokenizer, config, architecture)
    halves = [batches(dataset, tokenizer, config, architecture, process=p, processes=2) for p in range(2)]
    for _ in range(40):
        one, parts = next(whole), [next(h) for h in halves]
        for name in one:
            assert np.array_equal(one[name], np.concatenate([part[name] for part in parts]))


def test_bucketed_batches_have_the_smallest_shape_that_holds_them(dataset, tokenizer):
    config = config_of("bucketed")
    found = list(itertools.islice(batches(dataset, tokenizer, config), 30))
    shapes = {batch["tokens"].shape[1] for batch in found}
    assert shapes <= {96, 134, 192} and len(shapes) > 1
    loose = [b for b in found for smaller in (96, 134) if (b["segment_ids"] > 0).sum(axis=1).max() <= smaller < b["tokens"].shape[1]]
    assert len(loose) <= 2  # left-overs of a smaller bucket that move up


def take(stream, count):
    return [next(stream) for _ in range(count)]


@both_layouts
@pytest.mark.parametrize("workers", (0, 2))
def test_a_restored_iterator_goes_on_alike_also_the_second_time(dataset, tokenizer, layout, workers):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags
    config = config_of(layout, workers=workers, control_dropout=0.3)
    first = batches(dataset, tokenizer, config)
    take(first, 5)
    state = first.get_state()
    wanted = take(first, 34)  # beyond an epoch
    second = batches(dataset, tokenizer, config)
    second.set_state(state)
    got = take(second, 3)
    third = batches(dataset, tokenizer, config)
    third.set_state(second.get_state())
    got += take(third, 31)
    assert all(map(same, wanted, got))


@both_layouts
def test_the_seed_decides_the_order(dataset, tokenizer, layout):
    config = config_of(layout)
    one, again, other = (take(batches(dataset, tokenizer, config, seed=s), 4) for s in (3, 3, 4))
    assert all(map(same, one, again))
    assert not any(map(same, one, other))


@both_layouts
def test_dropping_controls_differs_from_epoch_to_epoch(dataset, tokenizer, layout):
    config = config_of(layout, control_dropout=0.5)
    kept, dropped = truth(dataset, tokenizer, config), {}
    template = Template(tokenizer, config)
    for i, example in enumerate(dataset.examples("train")):
        dropped.setdefault(key_of(pipeline.features(template.render(example, with_control=False), False, 0)), i)
    seen = collections.defaultdict(set)
    for batch in itertools.islice(batches(dataset, tokenizer, config), 200):
        for found in segments(batch):
            key = key_of(found)
            seen[kept.get(key, dropped.get(key))].add(key in kept)
    assert None not in seen
    with_controls = [i for i, e in enumerate(dataset.examples("train")) if e["control"]]
    both = sum(seen[i] == {True, False} for i in with_controls)
    assert both > len(with_controls) / 2


@both_architectures
@pytest.mark.parametrize("processes", (1, 2))
@pytest.mark.parametrize("batch_size", (2, 6))
def test_evaluation_reads_each_example_once_in_order(dataset, tokenizer, architecture, processes, batch_size):
    config = config_of("packed", batch_size=batch_size)
    keys = truth(dataset, tokenizer, config, "val", architecture)
    template = Template(tokenizer, config, architecture)
    parts = [
        list(pipeline.eval_batches(dataset, "val", template, config, architecture, process=p, processes=processes))
        for p in range(processes)
    ]
    assert len({len(p) for p in parts}) == 1
    seen = [n for step in zip(*parts, strict=True) for batch in step for n in numbers(batch, keys)]
    assert seen == list(range(len(keys)))
    assert {b["tokens"].shape for p in parts for b in p} == {(batch_size // processes, parts[0][0]["tokens"].shape[1])}
    if architecture == "causal":
        assert any((b["segment_ids"] == 0).all(axis=1).any() for p in parts for b in p) or len(parts[0]) * batch_size <= len(keys)


def test_evaluation_can_be_limited(dataset, tokenizer):
    config = config_of("packed", batch_size=1)
    template = Template(tokenizer, config)
    every = list(pipeline.eval_batches(dataset, "val", template, config, "causal"))
    some = list(pipeline.eval_batches(dataset, "val", template, config, "causal", limit=2))
    assert len(every) > 2 == len(some) and all(map(same, every, some))


@pytest.mark.parametrize(
    "changes, where, message",
    [
        ({"batch_size": 100_000}, {}, "larger than the"),
        ({"batch_size": 3}, {"process": 0, "processes": 2}, "divide among 2 processes"),
        ({"streams": 3}, {}, "3 streams.*--batch_size=4"),
        ({"streams": 2}, {"process": 0, "processes": 4}, "2 streams.*4 processes"),
        ({"packing": False, "buckets": "0.5,x"}, {}, "--buckets"),
        ({"packing": False, "buckets": "0.5,2"}, {}, "--buckets"),
        ({"row_length": 255}, {}, "--row_length=255 is below --length=256"),
        ({"row_length": 512, "packing": False}, {}, "--row_length=512 is for packed rows"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(dataset, tokenizer, changes, where, message):
    with pytest.raises(UserError, match=message):
        batches(dataset, tokenizer, config_of("packed", **changes), **where)


def test_a_decoder_row_that_would_cut_reasons_is_refused(dataset, tokenizer):
    with pytest.raises(UserError, match="--decoder_length"):
        batches(dataset, tokenizer, config_of("packed", decoder_length=40), "seq2seq")


def test_buckets_always_end_with_the_whole_row(dataset, tokenizer):
    """Nothing is cut for want of a bucket."""
    config = config_of("bucketed", buckets="0.3")
    keys = truth(dataset, tokenizer, config)
    for batch in itertools.islice(batches(dataset, tokenizer, config), 20):
        numbers(batch, keys)
