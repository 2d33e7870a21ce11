"""The loss of bundles against NumPy."""

import bundle_shop
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax, logsumexp

from rgjax.config import BundleConfig, ModelConfig
from rgjax.data.bundle_sets import BundleSets
from rgjax.models.bundle import BundleModel, Views
from rgjax.train import bundle_loss

DATA, BUNDLES = bundle_shop.grouped(40)
ITEMS, ROWS = len(DATA.items), 64
CONFIG = ModelConfig(width=16, layers=1, heads=2, dropout=0.0)


def _model():
    """Its descriptions are drawn, also those of rows beyond the items."""
    made = nnx.jit(lambda: BundleModel(CONFIG, ROWS, jax.random.key(0), 5))()
    made.content[...] = jax.random.normal(jax.random.key(1), (ROWS, 5))
    return made


def _batch(sets, bundles):
    rows = [sets.example(int(b), np.random.default_rng(int(b))) for b in bundles]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@nnx.jit
def _seen(model, batch):
    """(views, scores of all rows)."""
    table = model.table()
    views = model.views(batch, table)
    return views, sum(model.parts(views, table).values())


def brute_info_nce(scores, left_out, counted):
    losses = []
    for row in np.flatnonzero(counted):
        kept = [column for column in range(len(scores)) if column == row or (counted[column] and not left_out[row, column])]
        losses.append(logsumexp(scores[row, kept]) - scores[row, row])
    return np.mean(losses) if losses else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_info_nce_by_hand(seed):
    rng = np.random.default_rng(seed)
    scores, left_out, counted = rng.normal(size=(6, 6)).astype(np.float32), rng.random((6, 6)) < 0.3, rng.random(6) < 0.7
    found = bundle_loss.info_nce(jnp.asarray(scores), jnp.asarray(left_out), jnp.asarray(counted))
    assert float(found) == pytest.approx(brute_info_nce(scores, left_out, counted), rel=1e-5)
    assert float(bundle_loss.info_nce(jnp.asarray(scores), jnp.asarray(left_out), jnp.zeros(6, bool))) == 0.0


class _Given:
    """A model whose matches are given."""

    def __init__(self, scores):
        self.matches = lambda users, bundles: jnp.asarray(scores)


def test_the_contrast_is_the_mean_of_three_among_those_whose_user_is_told():
    rng = np.random.default_rng(0)
    scores, one, two = (rng.normal(size=size).astype(np.float32) for size in ((5, 5), (5, 4), (5, 4)))
    users, bundles = np.array([3, 3, -1, 5, 6]), np.array([0, 1, 2, 3, 3])
    own, two[3] = np.array([[1.0], [1], [1], [1], [0]]), 0.0  # the last user had nothing, the fourth has no other bundle
    views = Views(*[None] * 8)._replace(user_items=jnp.asarray(one), user_bundles=jnp.asarray(two), own=jnp.asarray(own))
    known = (users >= 0) & (own[:, 0] > 0)
    alike = (users[:, None] == users) | (bundles[:, None] == bundles)
    wanted = brute_info_nce(scores, alike, known) + brute_info_nce(scores.T, alike, known)
    wanted += brute_info_nce(one @ two.T / 0.2, alike, known & (np.abs(two).sum(1) > 0))
    found = bundle_loss.contrast(_Given(scores), views, jnp.asarray(users), jnp.asarray(bundles))
    assert float(found) == pytest.approx(wanted / 3, rel=1e-5)


def test_the_loss_is_the_cross_entropy_over_all_items_but_the_sets_own():
    sets = BundleSets(DATA, BUNDLES, BundleConfig(), np.zeros((len(BUNDLES), 5), np.float32))
    model, batch = _model(), _batch(sets, range(4)) | {"weights": np.array([1, 1, 0, 1], np.int32)}
    found = nnx.jit(lambda model: bundle_loss.sums(model, batch, None, BundleConfig(), ITEMS))(model)
    scores, nll, correct = np.asarray(_seen(model, batch)[1])[:, :ITEMS], [], []
    for n, target in enumerate(batch["targets"].tolist()):
        held = batch["sets"][n, 0][batch["encoder_segment_ids"][n, 0] > 0]
        free = np.setdiff1d(np.arange(ITEMS), held)
        nll.append(-log_softmax(scores[n, free])[free.tolist().index(target)])
        correct.append(free[scores[n, free].argmax()] == target)
    counted = [0, 1, 3]
    assert float(found["nll"]) == pytest.approx(sum(nll[n] for n in counted), rel=1e-4) and float(found["loss"]) == float(found["nll"])
    assert float(found["tokens"]) == 3 and float(found["correct"]) == sum(correct[n] for n in counted)


def test_training_adds_the_contrast_and_hides_vectors_of_items():
    sets = BundleSets(DATA, BUNDLES, BundleConfig(user_dropout=0), np.zeros((len(BUNDLES), 5), np.float32))
    model, batch = _model(), _batch(sets, BUNDLES.of("train")[:6])
    model.items[...] = jax.random.normal(jax.random.key(2), (ROWS, 16))
    seen = lambda key, **how: nnx.jit(lambda model: bundle_loss.sums(model, batch, key, BundleConfig(**how), ITEMS))(model)
    plain, shown = seen(None), seen(jax.random.key(0), item_dropout=0.0, contrast=0.5)  # the model itself drops nothing
    views = _seen(model, batch)[0]
    contrast = nnx.jit(lambda model: bundle_loss.contrast(model, views, batch["users"], batch["bundles"]))(model)
    assert float(contrast) > 0 and float(shown["nll"]) == pytest.approx(float(plain["nll"]), rel=1e-5)
    assert float(shown["loss"]) == pytest.approx(float(plain["nll"] + 0.5 * 6 * contrast), rel=1e-5)
    hidden = seen(jax.random.key(0), item_dropout=1.0, contrast=0.0)
    model.items[...] = jnp.zeros((ROWS, 16))
    assert float(hidden["nll"]) == pytest.approx(float(seen(None)["nll"]), rel=1e-5) != pytest.approx(float(plain["nll"]), rel=1e-5)
