"""Precomputed vectors: looked up by id, averaged over a history, replaced for ablations, and beside their examples in every layout."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgjax.config import InputConfig
from rgjax.data import covisit, pipeline
from rgjax.data.placeholders import WithPlaceholders
from rgjax.data.template import Template
from rgjax.data.vectors import Vectors
from rgjax.errors import UserError

EXAMPLE = {"user": {"id": "u1"}, "history": [{"title": "A"}, {"item": "b", "title": "B"}, {"title": "unknown"}], "item": {"title": "C"}}


def table(path, vectors: dict) -> str:
    rows = pa.table({"id": list(vectors), "vector": [list(map(float, v)) for v in vectors.values()]})
    pq.write_table(rows, path)
    return str(path)


@pytest.fixture
def items(tmp_path):
    return table(tmp_path / "items.parquet", {"A": (2, 0), "b": (0, 2), "C": (2, -2)})


def test_a_shopper_is_the_mean_of_the_known_history(items):
    found = Vectors(InputConfig(item_vectors=items))
    rms = np.sqrt((4 + 4 + 8) / 6)
    assert found.width == 4
    np.testing.assert_allclose(found.of(EXAMPLE), np.array([1, 1, 2, -2]) / rms, rtol=1e-6)
    stranger = {"item": {"title": "never seen"}}
    np.testing.assert_array_equal(found.of(stranger), np.zeros(4))


def test_a_table_of_shoppers_comes_first(items, tmp_path):
    users = table(tmp_path / "users.parquet", {"u1": (3, 3, 3), "u2": (-3, -3, -3)})
    found = Vectors(InputConfig(item_vectors=items, user_vectors=users))
    assert found.width == 5
    np.testing.assert_allclose(found.of(EXAMPLE)[:3], np.ones(3), rtol=1e-6)
    np.testing.assert_array_equal(found.of({**EXAMPLE, "user": {"id": "u3"}})[:3], np.zeros(3))  # widths differ: no mean of items


def test_ablations(items):
    given, zero, shuffled, random = (Vectors(InputConfig(item_vectors=items, vectors_as=m)) for m in ("given", "zero", "shuffle", "random"))
    np.testing.assert_array_equal(zero.of(EXAMPLE), np.zeros(4))
    assert {v.tobytes() for v in shuffled.items.values()} == {v.tobytes() for v in given.items.values()}
    again = Vectors(InputConfig(item_vectors=items, vectors_as="random"))
    np.testing.assert_array_equal(random.of(EXAMPLE), again.of(EXAMPLE))
    assert not np.allclose(random.of(EXAMPLE), given.of(EXAMPLE))


def test_unusable_tables(tmp_path):
    cases = {"none.parquet": None, "text.parquet": b"text", "twice.parquet": ["a", "a"], "nameless.parquet": ["", ""]}
    for name, content in cases.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            pq.write_table(pa.table({"id": content, "vector": [[1.0], [2.0]]}), path)
        with pytest.raises(UserError, match="--item_vectors=.*" + name):
            Vectors(InputConfig(item_vectors=str(path)))
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0], [float("nan")]]}), tmp_path / "nan.parquet")
    with pytest.raises(UserError, match="infinite"):
        Vectors(InputConfig(user_vectors=str(tmp_path / "nan.parquet")))


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
@pytest.mark.parametrize("packing", [True, False])
def test_every_example_of_a_batch_has_its_own_vector(dataset, tokenizer, tmp_path, architecture, packing):
    ids = {e["item"].get("id") or e["item"]["title"] for s in ("train", "val") for e in dataset.examples(s)}
    path = table(tmp_path / "v.parquet", {name: (n + 1, 1) for n, name in enumerate(sorted(ids))})
    config = InputConfig(length=400, target_length=64, decoder_length=200, batch_size=4, packing=packing, item_vectors=path, copy_slots="none")
    vectors = Vectors(config)
    inner = Template(tokenizer, dataclasses.replace(config, length=config.length - 3), architecture)
    template = WithPlaceholders(inner, 3, vectors)
    known = {}
    for split in ("train", "val"):
        for example in dataset.examples(split):
            known[tuple(template.render(example).prompt_ids)] = vectors.of(example)
    batches = [next(iter(pipeline.train_batches(dataset, template, config, architecture, seed=0)))]
    batches.append(next(iter(pipeline.eval_batches(dataset, "val", template, config, architecture))))
    prefix = "encoder_" if architecture == "seq2seq" else ""
    several = 0
    for batch in batches:
        assert batch["vectors"].dtype == np.float32
        for r in range(4):
            for segment in range(1, batch[f"{prefix}segment_ids"][r].max() + 1):
                tokens = batch[f"{prefix}tokens"][r][batch[f"{prefix}segment_ids"][r] == segment].tolist()
                mine = [v for prompt, v in known.items() if tuple(tokens[: len(prompt)]) == prompt]
                assert any(np.array_equal(v, batch["vectors"][r, segment - 1]) for v in mine)
                several += segment > 1
    assert several or not packing


def test_items_of_the_same_shoppers_lie_together():
    rng = np.random.default_rng(0)
    examples = []
    for n in range(60):  # two worlds of eight items each
        world = "ab"[n % 2]
        chosen = rng.permutation(8)[:5]
        examples.append({"user": {"id": n}, "history": [{"title": f"{world}{i}"} for i in chosen[:4]], "item": {"title": f"{world}{chosen[4]}"}})
    names, vectors = covisit.item_vectors(examples, 3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    world = np.array([name[0] for name in names])
    near = unit @ unit.T
    same = world[:, None] == world[None, :]
    assert near[same].mean() > near[~same].mean() + 0.5
    with pytest.raises(UserError, match="--width=16"):
        covisit.item_vectors(examples, 16)
    alone = [{"user": {"id": n}, "history": [], "item": {"title": f"i{n}"}} for n in range(20)]
    with pytest.raises(UserError, match="No two items go together in the training histories"):
        covisit.item_vectors(alone, 3)
    one_pair = [*alone, {"user": {"id": 1}, "history": [], "item": {"title": "i0"}}]
    assert np.isfinite(covisit.item_vectors(one_pair, 16)[1]).all()
