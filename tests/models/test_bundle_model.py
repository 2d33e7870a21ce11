"""The model of bundles: what it is blind to, what its scores are made of, and that nothing is not a number."""

import functools

import bundle_shop
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rgjax.config import BundleConfig, ModelConfig
from rgjax.data.bundle_sets import NOBODY, BundleSets
from rgjax.errors import UserError
from rgjax.models import bundle as bundle_lib
from rgjax.models.bundle import BundleModel
from rgjax.train import bundle_loss

DATA, BUNDLES = bundle_shop.grouped(40)
ITEMS, ROWS, WIDTH = len(DATA.items), 64, 5
CONFIG = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)
QUERIES = np.random.default_rng(1).normal(size=(len(BUNDLES), WIDTH)).astype(np.float32)


def _fresh():
    return nnx.jit(lambda: BundleModel(CONFIG, ROWS, jax.random.key(0), WIDTH))()


@pytest.fixture(scope="module")
def model():
    """One whose every part says something: all that begins at zero is drawn."""
    made = _fresh()
    drawn = iter(jax.random.split(jax.random.key(1), 3))
    made.content[...] = jnp.pad(jax.random.normal(next(drawn), (ITEMS, WIDTH)), ((0, ROWS - ITEMS), (0, 0)))
    made.items[...] = jax.random.normal(next(drawn), (ROWS, CONFIG.width))
    made.gate[...] = jnp.float32(0.7)
    made.strength[...] = 0.3 * jax.random.normal(next(drawn), made.strength[...].shape)
    return made


def _sets(**changes):
    return BundleSets(DATA, BUNDLES, BundleConfig(**{"set_length": 5, "user_length": 6, "user_bundles": 2, "beside": 8} | changes), QUERIES)


def _batch(rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@nnx.jit
def _look(model, batch):
    return model.views(batch, model.table())


def _views(model, rows):
    return _look(model, _batch(rows))


def _row(sets, bundle, user=True, query=None):
    return sets.row(BUNDLES.members(bundle), sets.owner(bundle) if user else NOBODY, bundle, query)


def test_the_order_of_a_set_means_nothing(model):
    sets, other = _sets(), {}
    row = _row(sets, 3, query=QUERIES[3])
    for items, segments in (("sets", "encoder_segment_ids"), ("own", "own_segments"), ("beside", "beside_weights")):
        order = np.random.default_rng(2).permutation(row[items].shape[-1])
        other |= {items: row[items][..., order], segments: row[segments][..., order]}
    one, two = _views(model, [row]), _views(model, [row | other])
    for name, left, right in zip(one._fields, one, two, strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5, err_msg=name)


def test_padding_changes_nothing(model):
    for query in (None, QUERIES[4]):
        short = _views(model, [_row(_sets(), 4, query=query)])
        long = _views(model, [_row(_sets(set_length=9, user_length=20, user_bundles=4, beside=30), 4, query=query)])
        for name, left, right in zip(short._fields, short, long, strict=True):
            np.testing.assert_allclose(left, right, atol=2e-5, err_msg=name)
    row = _row(_sets(), 4)
    marks = {"sets": "encoder_segment_ids", "own": "own_segments", "beside": "beside_weights"}
    odd = row | {name: np.where(row[mark] > 0, row[name], 7) for name, mark in marks.items()}
    for left, right in zip(_views(model, [row]), _views(model, [odd]), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-5)


def test_views_and_parts_are_those_of_their_definition(model):
    """In NumPy, of a model whose stack says nothing (gate 0)."""
    graph, state = nnx.split(model)
    plain = nnx.merge(graph, jax.tree.map(lambda v: v, state))
    plain.gate[...] = jnp.float32(0)
    sets = _sets()
    rows = [_row(sets, 6, query=QUERIES[6]), _row(sets, 7, user=False)]
    views = _views(plain, rows)
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    content, weight = np.asarray(plain.content[...]), np.asarray(plain.w_content[...])
    table = unit(content @ weight + np.asarray(plain.items[...]))
    strengths = np.array(bundle_lib._INITIAL) * np.exp(np.asarray(plain.strength[...]))
    parts = {name: np.asarray(part) for name, part in nnx.jit(lambda plain: plain.parts(views, plain.table()))(plain).items()}
    assert parts.keys() == set(bundle_lib.PARTS)
    for n, (bundle, query, user) in enumerate(((6, QUERIES[6], sets.owner(6)), (7, np.zeros(WIDTH), NOBODY))):
        items, own = BUNDLES.members(bundle), sets.items_of(user, bundle)[:6]
        told = [table[i] for i in items] + ([unit(query @ weight)] if query.any() else [])
        vector = unit(np.mean(told, 0))
        others = [unit(table[BUNDLES.members(b)].mean(0)) for b in sets.others(user, bundle)[:2]]
        near = dict(sorted(sets.beside(items, bundle).items(), key=lambda pair: (-pair[1], pair[0]))[:8])
        wanted = {
            "learned": table @ vector, "text": content @ unit(content[items].mean(0) + query), "beside": [near.get(i, 0) for i in range(ROWS)],
            "user_items": table @ unit(table[own].mean(0)) if len(own) else np.zeros(ROWS),
            "user_bundles": table @ unit(np.sum(others, 0)) if others else np.zeros(ROWS), "own": np.isin(np.arange(ROWS), own) * 1.0,
        }  # fmt: skip
        for strength, (name, value) in zip(strengths, wanted.items(), strict=False):
            np.testing.assert_allclose(parts[name][n], strength * np.asarray(value), atol=1e-4, err_msg=name)


def test_matches_are_the_weighted_sum_of_what_users_and_bundles_share(model):
    sets = _sets()
    users = _views(model, [sets.row(np.zeros(0, int), sets.owner(b), b) for b in (0, 1, 2)])
    bundles = _views(model, [sets.row(BUNDLES.members(b), NOBODY) for b in (4, 0)])
    found = np.asarray(nnx.jit(lambda model: model.matches(users, bundles))(model))
    strengths = np.asarray(model.strengths())[len(bundle_lib.PARTS) :]
    for n, m in np.ndindex(3, 2):
        shared = len(set(np.flatnonzero(users.own[n])) & set(np.flatnonzero(bundles.held[m]))) / int(bundles.held[m].sum())
        sides = (users.user_items[n] @ bundles.bundle[m], users.user_bundles[n] @ bundles.bundle[m], users.user_text[n] @ bundles.text[m], shared)
        assert found[n, m] == pytest.approx(float(sum(w * side for w, side in zip(strengths, sides, strict=True))), abs=1e-4)


def test_an_item_nobody_had_is_known_by_its_text(model):
    """Untrained vectors are zeros: two items of one description are alike, and where the item is left out in training all are such."""
    fresh = _fresh()
    fresh.content[...] = model.content[...].at[5].set(model.content[...][9])
    np.testing.assert_array_equal(fresh.table()[5], fresh.table()[9])
    assert float(jnp.abs(fresh.table()[5]).sum()) > 0
    fresh.items[...] = model.items[...]
    assert not np.allclose(fresh.table()[5], fresh.table()[9])
    keep = jnp.ones((ROWS, 1)).at[5].set(0)
    np.testing.assert_allclose(fresh.table(keep)[5], bundle_lib.unit(fresh.content[...][9] @ fresh.w_content[...]), atol=1e-6)


@pytest.mark.parametrize("silent", (True, False))
def test_gradients_are_finite_where_there_is_nothing_to_look_at(model, silent):
    graph, state = nnx.split(model)
    copy = nnx.merge(graph, jax.tree.map(lambda v: jnp.zeros_like(v) if silent else v, state))
    sets = _sets()
    empty = sets.row(np.zeros(0, int), NOBODY)
    batch = _batch([row | {"targets": np.int32(3), "weights": np.int32(1)} for row in (empty, _row(sets, 1), _row(sets, 2, user=False))])
    loss = functools.partial(bundle_loss.sums, config=BundleConfig(), items=ITEMS)

    @nnx.jit
    def value_and_grad(model):
        return nnx.value_and_grad(lambda m: loss(m, batch, jax.random.key(3))["loss"])(model)

    value, grads = value_and_grad(copy)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert not bundle_lib.unit(jnp.zeros((2, 3))).any()


@pytest.mark.parametrize("change", ({"positions": "relative"}, {"block": "pointwise"}))
def test_what_orders_a_set_is_refused(change):
    with pytest.raises(UserError, match="have no order"):
        BundleModel(ModelConfig(width=16, layers=1, heads=2, **change), ROWS, jax.random.key(0), WIDTH)
