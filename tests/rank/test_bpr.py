"""BPR and its drawn pairs: gradients against differences, laws of the draws, and that it learns two separate tastes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shop import shop, tastes

from rgjax.errors import UserError
from rgjax.rank import bpr, negatives


def test_loss_is_minus_log_sigmoid():
    margins = np.array([-3.0, 0.0, 2.5])
    np.testing.assert_allclose(bpr.loss(margins), -np.log(1 / (1 + np.exp(-margins))), rtol=1e-6)


def test_gradients_are_differences_and_rendles():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        rows = [rng.normal(size=s) for s in ((3, 4), (3, 4), (3, 4), (3,), (3,))]
        found = jax.grad(bpr.sample_loss)(tuple(map(jnp.asarray, rows)), 0.3)
        for n, row in enumerate(rows):
            for place in np.ndindex(row.shape):
                moved = [[r.copy() for r in rows] for _ in range(2)]
                moved[0][n][place] += 1e-6
                moved[1][n][place] -= 1e-6
                slope = (bpr.sample_loss(moved[0], 0.3) - bpr.sample_loss(moved[1], 0.3)) / 2e-6
                assert float(found[n][place]) == pytest.approx(float(slope), abs=1e-7)
        user, good, bad, up, down = rows
        x = (user * (good - bad)).sum(1) + up - down
        np.testing.assert_allclose(found[0], -(1 / (1 + np.exp(x)))[:, None] * (good - bad) + 0.3 * user)  # the paper's update, negated


@pytest.mark.parametrize("seed", range(3))
def test_search_finds_exactly_what_was_taken(seed):
    data = shop(users=20, items=15, events=90, seed=seed)
    taken, dense = negatives.table(data.matrix), data.matrix.toarray() > 0
    users, items = np.meshgrid(np.arange(20), np.arange(15), indexing="ij")
    assert (np.asarray(negatives.took(taken, users, items)) == dense).all()


def test_draws_are_entries_and_unseen_items_uniformly():
    data = shop(users=8, items=12, events=50)
    dense = data.matrix.toarray() > 0
    users, good, bad = (np.asarray(a) for a in jax.jit(negatives.draw, static_argnums=2)(jax.random.key(0), negatives.table(data.matrix), 40_000))
    assert dense[users, good].all()
    drawn = np.zeros(dense.shape)
    np.add.at(drawn, (users, good), 1)
    assert np.abs(drawn[dense] / 40_000 - 1 / dense.sum()).max() < 0.005
    wrong, share = dense[users, bad], dense.mean(1)[users]
    assert wrong.mean() == pytest.approx((share**negatives.TRIES).mean(), abs=0.01)
    fullest = dense.sum(1).argmax()
    own = np.bincount(bad[(users == fullest) & ~wrong], minlength=12)[~dense[fullest]]
    assert np.abs(own / own.sum() - 1 / len(own)).max() < 0.05


def test_a_rate_of_zero_moves_nothing_and_one_step_is_the_gradient():
    data = shop()
    taken = negatives.table(data.matrix)
    make = lambda: bpr.Factors(*(jax.random.normal(jax.random.key(n), s) for n, s in enumerate([(12, 3), (9, 3), (9,)])))
    keys = jax.random.split(jax.random.key(5), 1)

    def total(factors):
        users, good, bad = negatives.draw(keys[0], taken, 32)
        rows = (factors.users[users], factors.items[good], factors.items[bad], factors.bias[good], factors.bias[bad])
        return bpr.sample_loss(rows, 0.1)

    value, slopes = jax.value_and_grad(total)(make())
    found, told = bpr._epoch(make(), keys, taken[:3], taken.items, 32, 0.01, 0.1)
    for before, after, slope in zip(make(), found, slopes, strict=True):
        np.testing.assert_allclose(after, before - 0.01 * slope, atol=1e-5)
    assert float(told) == pytest.approx(float(value) / 32, rel=1e-5)


def test_two_tastes_are_learned():
    data = tastes()
    model = bpr.fit(data, width=8, epochs=30, batch=64)
    scores, own = np.asarray(model.scores(np.arange(60))), np.arange(40) // 20 == (np.arange(60) % 2)[:, None]
    assert model.losses[-1] < 0.5 * model.losses[0]
    assert (scores[own].reshape(60, 20).mean(1) > scores[~own].reshape(60, 20).mean(1)).all()


def test_divergence_is_told():
    with pytest.raises(UserError, match="diverged in epoch"):
        bpr.fit(tastes(), rate=1e20, epochs=2)
