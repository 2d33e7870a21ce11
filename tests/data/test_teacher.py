"""A teacher's records beside examples: each at its own tokens, however rows are packed, bucketed, shared out or resumed."""

import itertools
import json

import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import both_architectures, both_layouts, config_of, same, take

from rgjax.data import pipeline
from rgjax.data.shards import ShardWriter
from rgjax.data.teacher import MANIFEST, Record, TeacherLogits, id_type
from rgjax.data.template import Template
from rgjax.errors import UserError

TOP, TEMPERATURES = 3, [1.0, 2.0]


def marked(targets):
    """A record whose numbers tell the target they belong to: ids target, target + 1, ...; logits target / 16, ..."""
    targets = np.asarray(targets, np.int32)
    return Record(targets, targets[:, None] + np.arange(TOP), (targets[:, None] + np.arange(TOP + 2)) / 16)


@pytest.fixture(scope="module")
def folder(dataset, tokenizer, tmp_path_factory):
    """folder(layout, architecture) -> a teacher's folder of marked records."""
    made = {}

    def get(layout, architecture):
        if (layout, architecture) not in made:
            place = made[layout, architecture] = tmp_path_factory.mktemp("teacher")
            config = config_of(layout)
            template, writer = Template(tokenizer, config, architecture), ShardWriter(place, "train", 50)
            for example in dataset.examples("train"):
                arrays = pipeline.as_fed(example, template, config, architecture)
                writer.write(marked(arrays["targets"][arrays["weights"] > 0]).encode("<u2"))
            facts = {"format": 1, "dataset_fingerprint": dataset.fingerprint, "tokenizer_sha256": tokenizer.checksum(), "top": TOP}
            facts |= {"temperatures": TEMPERATURES, "id_type": "<u2", "rendering": {"prompt": "markers"}, "shards": writer.close()}
            (place / MANIFEST).write_text(json.dumps(facts))
        return made[layout, architecture]

    return get


def batches(dataset, tokenizer, config, teacher, architecture="causal", **where):
    template = Template(tokenizer, config, architecture)
    return iter(pipeline.train_batches(dataset, template, config, architecture, seed=0, teacher=teacher, **where))


@both_layouts
@both_architectures
def test_every_target_token_has_its_own_row(dataset, tokenizer, folder, layout, architecture):
    config = config_of(layout)
    teacher = TeacherLogits.open(folder(layout, architecture), 2.0)
    plain = batches(dataset, tokenizer, config, None, architecture)
    for batch, bare in itertools.islice(zip(batches(dataset, tokenizer, config, teacher, architecture), plain, strict=True), 30):
        assert all(np.array_equal(batch[name], bare[name]) for name in bare)  # a teacher changes no order
        at = batch["weights"] > 0
        assert batch["teacher_ids"].dtype == np.int32 and batch["teacher_logits"].dtype == np.float16
        assert np.array_equal(batch["teacher_ids"][at], batch["targets"][at][:, None] + np.arange(TOP))
        wanted = (batch["targets"][at][:, None] + np.array([*range(TOP), TOP + 1])) / 16  # the second temperature's column
        np.testing.assert_allclose(batch["teacher_logits"][at], wanted, rtol=1e-3)
        assert not batch["teacher_ids"][~at].any() and not batch["teacher_logits"][~at].any()


@both_layouts
@pytest.mark.parametrize("workers", (0, 2))
def test_a_restored_iterator_goes_on_alike(dataset, tokenizer, folder, layout, workers):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags
    config, teacher = config_of(layout, workers=workers), TeacherLogits.open(folder(layout, "causal"), 1.0)
    first = batches(dataset, tokenizer, config, teacher)
    take(first, 13)
    state = first.get_state()
    wanted = take(first, 20)
    second = batches(dataset, tokenizer, config, TeacherLogits.open(folder(layout, "causal"), 1.0))
    second.set_state(state)
    assert all(map(same, wanted, take(second, 20)))


def test_two_processes_share_out_what_one_reads(dataset, tokenizer, folder):
    config, teacher = config_of("bucketed"), TeacherLogits.open(folder("bucketed", "causal"), 1.0)
    whole = batches(dataset, tokenizer, config, teacher)
    halves = [batches(dataset, tokenizer, config, teacher, process=p, processes=2) for p in range(2)]
    for one, *parts in itertools.islice(zip(whole, *halves, strict=False), 20):
        for name in one:
            assert np.array_equal(one[name], np.concatenate([part[name] for part in parts]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 3), st.sampled_from([600, 1 << 16, 100_000]), st.integers(0, 99))
def test_a_record_comes_back(n, top, temperatures, vocabulary, seed):
    rng, kind = np.random.default_rng(seed), id_type(vocabulary)
    ids = lambda *shape: rng.integers(0, vocabulary, shape).astype(np.int32)
    record = Record(ids(n), ids(n, top), rng.normal(0, 9, (n, top + temperatures)).astype(np.float16))
    raw = record.encode(kind)
    assert all(np.array_equal(a, b) for a, b in zip(record, Record.decode(raw, top, temperatures, kind), strict=True))
    with pytest.raises(ValueError):
        Record.decode(raw + b"x", top, temperatures, kind)


def test_what_does_not_fit_is_refused_in_one_sentence(dataset, tokenizer, folder, tmp_path):
    place = folder("packed", "causal")
    teacher = TeacherLogits.open(place, 1.0)
    teacher.check(dataset, {"prompt": "markers"})
    with pytest.raises(UserError, match=r"--distill_temperature=3 is not held by .* 1, 2; take one of these\."):
        TeacherLogits.open(place, 3.0)
    with pytest.raises(UserError, match=r"computed with --prompt markers, not chat"):
        teacher.check(dataset, {"prompt": "chat"})
    with pytest.raises(UserError, match="holds no teacher.json"):
        TeacherLogits.open(tmp_path, 1.0)
    held = json.loads((place / MANIFEST).read_text())
    lacking = {name: value for name, value in held.items() if name != "shards"}
    for body in ([], lacking, held | {"temperatures": 2}, held | {"temperatures": ["1"]}, held | {"shards": [1]}, held | {"shards": [{"file": "a"}]}):
        (tmp_path / MANIFEST).write_text(json.dumps(body))
        with pytest.raises(UserError, match="damaged or of another version"):
            TeacherLogits.open(tmp_path, 1.0)
    for file in (str(place / held["shards"][0]["file"]), f"../{place.name}/{held['shards'][0]['file']}", "..", 5):
        (tmp_path / MANIFEST).write_text(json.dumps(held | {"shards": [held["shards"][0] | {"file": file}]}))
        with pytest.raises(UserError, match="lists the shard .* no file name of its own"):
            TeacherLogits.open(tmp_path, 1.0)
    config = config_of("packed", copy_slots="none")  # other target tokens
    with pytest.raises(UserError, match="other target tokens"):
        take(batches(dataset, tokenizer, config, teacher), 2)
