"""The model of behaviour: no look ahead, windows apart, attention as a distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ring

from rgjax.config import ModelConfig
from rgjax.data import behaviour
from rgjax.models.behaviour import BehaviourModel, table_rows

DATA = ring.following(20)
FOUND = behaviour.events(DATA, ["rating", "gap"], None)
SIZES = {"rating": behaviour.RATING_BUCKETS, "gap": behaviour.GAP_BUCKETS}


def _model(**options):
    config = ModelConfig(**({"layers": 2, "width": 16, "heads": 2, "dropout": 0.0} | options))
    return BehaviourModel(config, table_rows(ring.ITEMS), jax.random.key(0), SIZES)


def _row(users, length=24):
    parts = [FOUND.rows(slice(DATA.offsets[u], DATA.offsets[u + 1])) for u in users]
    whole = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    sizes = [len(p["tokens"]) for p in parts]
    whole["segment_ids"] = np.repeat(np.arange(1, len(parts) + 1), sizes)
    whole["positions"] = np.concatenate([np.arange(n) for n in sizes])
    return {name: np.pad(values, (0, length - len(values)))[None] for name, values in whole.items()}


@pytest.mark.parametrize("positions", ["rotary", "learned", "relative"])
@pytest.mark.parametrize("block", ["transformer", "pointwise"])
def test_the_future_changes_nothing(positions, block):
    model, batch = _model(positions=positions, block=block), _row([0])
    hidden = model(batch)
    later = {name: values.copy() for name, values in batch.items()}
    later["tokens"][0, 3:] = (later["tokens"][0, 3:] + 5) % ring.ITEMS
    later["rating"][0, 3:] = 1
    np.testing.assert_allclose(model(later)[0, :3], hidden[0, :3], atol=1e-5)
    assert np.abs(model(later)[0, 3] - hidden[0, 3]).max() > 1e-3


def test_windows_of_one_row_do_not_see_each_other():
    model = _model()
    together, first, second = model(_row([1, 2])), model(_row([1])), model(_row([2]))
    one, two = len(DATA.history(1)), len(DATA.history(2))
    np.testing.assert_allclose(together[0, :one], first[0, :one], atol=1e-5)
    np.testing.assert_allclose(together[0, one : one + two], second[0, :two], atol=1e-5)


def test_every_feature_counts():
    model, batch = _model(), _row([0])
    for name in ("tokens", "rating", "gap"):
        other = batch | {name: batch[name] + (batch["segment_ids"] > 0)}
        assert np.abs(model(other) - model(batch)).max() > 1e-3


def test_a_user_is_the_state_at_the_last_event():
    model, batch = _model(), _row([0])
    count = len(DATA.history(0))
    np.testing.assert_allclose(model.user_vectors(batch)[0], model(batch)[0, count - 1], rtol=1e-5)


def test_attention_is_a_distribution_and_is_what_the_layer_used():
    model, batch = _model(layers=1, kv_heads=1), _row([0])
    count = len(DATA.history(0))
    weights = model.attention(batch)
    assert weights.shape == (1, 24) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    assert weights[0, count:].max() < 1e-6
    # By hand, from queries and keys of the only layer.
    block = model.decoder.block(0)
    x, rope = block.norm_attention(model.embedding(batch)), model.decoder.rope(jnp.asarray(batch["positions"]))
    cache = block.attention.keys_values(x, rope)
    allowed = np.zeros((1, 1, 24, 24), np.float32) + np.where(np.tril(np.ones((24, 24))) > 0, 0, -1e9)
    full = block.attention.weights(x, allowed, rope)
    values = np.repeat(np.asarray(cache.v), 2, axis=2)
    out = np.einsum("bhts,bsha->btha", np.asarray(full), values)
    expected, _ = block.attention(x, allowed, rope)
    np.testing.assert_allclose(np.einsum("btha,had->btd", out, np.asarray(block.attention.wo[...]))[0, :count], expected[0, :count], atol=1e-5)


def test_item_vectors_enter_through_their_matrix():
    config = ModelConfig(layers=1, width=16, heads=2, dropout=0.0)
    model = BehaviourModel(config, 64, jax.random.key(0), {}, vector_width=3)
    batch = _row([0]) | {"vector": np.zeros((1, 24, 3), np.float32)}
    other = batch | {"vector": np.ones((1, 24, 3), np.float32)}
    np.testing.assert_allclose(
        model.embedding(other) - model.embedding(batch), np.broadcast_to(model.embedding.w_vector[...].sum(0), (1, 24, 16)), atol=1e-5
    )
