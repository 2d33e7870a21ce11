"""Two towers: scores and loss against numpy written out, what is drawn, and that new items, new users and profiles are told by content."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from shop import tastes

from rgjax.data.interactions import Catalogue
from rgjax.errors import UserError
from rgjax.rank import described, towers, two_tower
from rgjax.rank.recommender import ProfileRecommender, by_seen

SMALL = dict(width=8, hidden=8, batch=64, negatives=16)
HALF = np.arange(40) // 20
DRAWN = jax.jit(towers.drawn, static_argnums=(2, 3, 4, 5, 6))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(two_tower, "LEAST_STEPS", 100)
    monkeypatch.setattr(two_tower, "WINDOW", 6)


def told(cold=()):
    """Two tastes whose items' titles, makers and users' towns say which it is; `cold` items are described and have no event."""
    data = tastes()
    titles = [f"{'red blue'.split()[half]} shoe {i}" for i, half in enumerate(HALF)]
    items = Catalogue(data.items.ids, titles, [{"maker": [f"m{half}{i % 2}"]} for i, half in enumerate(HALF)])
    data = dataclasses.replace(data, items=items, profiles=[{"town": "AB"[user % 2]} for user in range(60)])
    return data.where(~np.isin(data.item, cold))


@pytest.fixture(scope="module")
def cold_fit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_tower, "LEAST_STEPS", 200)
        patch.setattr(two_tower, "WINDOW", 6)
        return two_tower.fit(told(cold=(3, 17, 25, 38)), **SMALL)


def test_kinds_are_blocks_of_cosines():
    data, vectors = told(), np.random.default_rng(0).normal(size=(40, 3))
    found = described.describe(data, data.counts > 0, {"image": vectors})
    assert found.kinds == ("title", "maker", "image")
    for kind in range(3):
        block = found.rows_IF.toarray()[:, found.kind_F == kind]
        lengths = np.linalg.norm(block, axis=1)
        assert (lengths < 1 + 1e-5).all() and (kind == 0 or (lengths > 1 - 1e-5).all())  # of titles, a number that one item has is left out
    maker, image = (found.rows_IF.toarray()[:, found.kind_F == kind] for kind in (1, 2))
    np.testing.assert_allclose(maker @ maker.T, [[a == b for b in data.items.attributes] for a in data.items.attributes], atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(image @ image.T, unit @ unit.T, atol=1e-5)
    assert (found.kind_F == 0).sum() == 3  # red, blue and shoe


def test_padded_rows_are_the_matrix():
    rows = sparse.random_array((9, 7), density=0.3, format="csr", rng=np.random.default_rng(1))
    held = towers.Rows(*map(jnp.asarray, described.padded(rows)))
    np.testing.assert_allclose(towers.dense(held, np.array([8, 0, 3, 3]), 7), rows.toarray()[[8, 0, 3, 3]], rtol=1e-6)
    assert towers.dense(towers.Rows(*map(jnp.asarray, described.padded(sparse.csr_array((4, 0))))), np.arange(4), 0).shape == (4, 0)


def user_by_hand(model, history, profile):
    """[D] as its docstring says, an event at a time."""
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), model.weights)
    last = list(history[-two_tower.WINDOW :])[::-1]
    rows = model.described.rows_IF.toarray()
    share = np.exp(w.recency_LD[: len(last)])
    seen = np.zeros(8) + sum((s / share.sum(0)) * w.history_ID[i] * model.known[i] for s, i in zip(share, last, strict=True))
    seen = seen + (rows[last].mean(0) @ w.history_FD if last else 0)
    seen = seen + sum(w.profile_GD[model.values[f"{k}={v}"]] for k, v in profile.items() if f"{k}={v}" in model.values)
    hidden = np.asarray(jax.nn.gelu(jnp.asarray(seen @ w.up_DH)))
    return seen + hidden @ w.down_HD + w.bias_D


def test_scores_are_theta_f_plus_omega_g(cold_fit):
    histories, profiles = [np.array([2, 9, 3, 3, 30, 11, 4, 9]), np.array([25]), np.zeros(0, int)], [{"town": "A"}, {}, {"town": "elsewhere"}]
    found = np.asarray(cold_fit.from_histories(histories, profiles))
    w, rows = cold_fit.weights, cold_fit.described.rows_IF.toarray()
    omega = cold_fit.content_weights()
    for b, (history, profile) in enumerate(zip(histories, profiles, strict=True)):
        user = user_by_hand(cold_fit, history, profile)
        taste = rows[history[-6:]].mean(0) if len(history) else np.zeros(rows.shape[1])
        for item in (0, 3, 21, 38):
            own = rows[item] @ np.asarray(w.items_FD) + np.asarray(w.items_ID)[item] * (item not in (3, 38))
            pair = np.asarray(w.theta_D) @ (user * own)
            content = sum(omega[kind] * (taste * rows[item])[cold_fit.described.kind_F == k].sum() for k, kind in enumerate(omega))
            assert found[b, item] == pytest.approx(pair + content, abs=1e-4)


def test_loss_is_a_sampled_softmax_with_l2(cold_fit):
    data, w = told(), cold_fit.weights
    shop = two_tower.shop_of(data, data.counts > 0, cold_fit.described, cold_fit.values)
    key = jax.random.key(4)
    total, alone = jax.jit(towers.batch_loss, static_argnums=(3, 4))(w, shop, key, 32, 8, 0.3)
    draw_key, hide_key = jax.random.split(key)
    read, good, bad, none = DRAWN(draw_key, shop, 32, 8, 6, len(shop.kind_F), len(w.profile_GD))
    shown = np.asarray(jax.random.bernoulli(hide_key, 1 - towers.HIDE, (40,)), float)
    rows = np.asarray(cold_fit.described.rows_IF.toarray())
    user = np.asarray(jax.jit(towers.user_tower)(w, read))
    item = lambda i, shown: rows[i] @ np.asarray(w.items_FD) + np.asarray(w.items_ID)[i] * shown
    logit = lambda b, i, shown: (
        np.sum(np.asarray(w.theta_D) * user[b] * item(i, shown)) + np.sum(np.asarray(read.taste_BF)[b] * np.asarray(w.omega_K)[shop.kind_F] * rows[i])
    )
    losses = []
    for b in range(32):
        others = [logit(b, i, shown[32 + m]) + np.log(39 / 8) for m, i in enumerate(np.asarray(bad)) if not none[b, m]]
        own = logit(b, int(good[b]), shown[b])
        losses.append(np.log(np.exp(np.array([own, *others])).sum()) - own)
    assert float(alone) == pytest.approx(np.mean(losses), rel=1e-4)
    tower = [user, np.stack([item(int(i), s) for i, s in zip(good, shown[:32], strict=True)])]
    tower += [np.stack([item(int(i), s) for i, s in zip(bad, shown[32:], strict=True)])]
    squares = np.sum(np.asarray(w.theta_D) ** 2) + np.sum(np.asarray(w.omega_K) ** 2) + sum((t**2).sum(1).mean() for t in tower)
    assert float(total - alone) == pytest.approx(0.15 * squares, rel=1e-4)


def test_histories_are_the_events_before_and_their_items_no_candidates():
    data = told()
    known = data.counts > 0
    shop = two_tower.shop_of(data, known, described.describe(data, known, {}), {})
    read, good, bad, none = DRAWN(jax.random.key(0), shop, 200, 30, 6, len(shop.kind_F), 0)
    ended = set()
    for user in range(60):
        history = data.history(user)
        ended |= {(tuple(history[max(0, n - 6) : n][::-1]), history[n]) for n in range(len(history))}
    for b in range(200):
        before = np.asarray(read.item_BL)[b][np.asarray(read.there_BL)[b]]
        assert (tuple(before), int(good[b])) in ended
        assert (np.asarray(none)[b] == np.isin(bad, [*before, int(good[b])])).all()


def test_new_items_and_new_users_are_told_by_what_is_said(cold_fit):
    fresh = [np.array([0, 5, 8]), np.array([22, 31, 27]), np.array([3, 17])]  # the last knows cold items only
    scores = np.asarray(cold_fit.from_histories(fresh))
    assert not cold_fit.known[[3, 17, 25, 38]].any() and isinstance(cold_fit, ProfileRecommender)
    for row, own in zip(scores, (0, 1, 0), strict=True):
        assert row[HALF == own].mean() > row[HALF != own].mean()
        cold = row[[3, 17, 25, 38]]
        assert cold[2 * own : 2 * own + 2].min() > cold[2 - 2 * own : 4 - 2 * own].max()


def test_profiles_count_where_there_is_no_history(cold_fit):
    nobody = [np.zeros(0, int)] * 2
    scores = np.asarray(cold_fit.from_histories(nobody, [{"town": "A"}, {"town": "B"}]))
    assert (scores[0] - scores[1])[HALF == 0].mean() > (scores[0] - scores[1])[HALF == 1].mean() + 0.5
    seen = told().where(np.zeros(720, bool))
    np.testing.assert_allclose(by_seen(cold_fit, seen, np.array([0, 1])), scores, rtol=1e-5)


def test_a_seed_gives_the_same_model_and_vectors_alone_do():
    data = tastes()
    bare = dataclasses.replace(data, items=Catalogue(data.items.ids, [""] * 40, [{}] * 40))
    vectors = {"image": np.stack([HALF == 0, HALF == 1], 1) + np.random.default_rng(0).normal(size=(40, 2)) * 0.1}
    one, same, other = (two_tower.fit(bare, vectors, **SMALL, seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one.weights, same.weights, strict=True)) and (one.losses != other.losses).any()
    assert list(one.content_weights()) == ["image"] and one.losses[-1] < one.losses[0]


def test_refusals():
    with pytest.raises(UserError, match="No two items"):
        two_tower.fit(dataclasses.replace(tastes(), items=Catalogue([*map(str, range(40))], [""] * 40, [{}] * 40)))
    with pytest.raises(UserError, match="diverged within 50 steps"):
        two_tower.fit(told(), **SMALL, rate=float("nan"))
