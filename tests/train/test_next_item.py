"""Losses against sampled items, and the samplers, beside what they are defined by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import ring
from scipy import stats

from rgjax.config import BehaviourConfig
from rgjax.train import negatives, next_item, ranking_loss

DATA = ring.following()


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _batch(seed=0, rows=3, length=7):
    rng = np.random.default_rng(seed)
    item = lambda: rng.integers(0, ring.ITEMS, (rows, length)).astype(np.int32)
    segments = np.sort(rng.integers(1, 3, (rows, length)), axis=1).astype(np.int32)
    users = np.array([[10 * r + s for s in row] for r, row in enumerate(segments)], np.int32)
    weights = np.ones((rows, length), np.int32)
    return {"tokens": item(), "targets": item(), "weights": weights, "segment_ids": segments, "users": users}


def test_bce_and_gbce_by_their_formulas():
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 4))
    mean = -np.log(_sigmoid(positive)) - np.log(1 - _sigmoid(negative)).mean(-1)  # beta = N weighs both sides alike
    np.testing.assert_allclose(ranking_loss.gbce(positive, negative, 4.0), mean, rtol=1e-5)
    one = ranking_loss.gbce(positive, negative[..., :1], 1.0)
    np.testing.assert_allclose(one, -np.log(_sigmoid(positive)) - np.log(1 - _sigmoid(negative[..., 0])), rtol=1e-5)
    # The paper: s(positive)^beta in the logarithm, over N negatives.
    beta = 0.3
    paper = -(beta * np.log(_sigmoid(positive)) + np.log(1 - _sigmoid(negative)).sum(-1)) / 4
    np.testing.assert_allclose(ranking_loss.gbce(positive, negative, beta), paper, rtol=1e-5)


def test_gbce_beta_at_its_ends():
    assert ranking_loss.gbce_beta(1001, 100, 0.0) == pytest.approx(1.0)  # t = 0 is bce
    assert ranking_loss.gbce_beta(1001, 100, 1.0) == pytest.approx(0.1)  # t = 1: beta = alpha
    assert ranking_loss.gbce_beta(3417, 256, 0.75) == pytest.approx(0.75 * (256 / 3416 - 1) + 1)


def test_what_is_no_negative_does_not_count():
    positive, negative = jnp.zeros((1, 1)), jnp.array([[[0.5, ranking_loss.MINUS]]])
    np.testing.assert_allclose(ranking_loss.gbce(positive, negative, 1.0), ranking_loss.gbce(positive, negative[..., :1], 1.0), rtol=1e-6)
    zeros = jnp.zeros_like(negative)
    np.testing.assert_allclose(
        ranking_loss.sampled_softmax(positive, negative, jnp.zeros((1, 1)), zeros),
        ranking_loss.sampled_softmax(positive, negative[..., :1], jnp.zeros((1, 1)), zeros[..., :1]), rtol=1e-6,
    )


def test_sampled_softmax_with_the_correction_nears_the_full_one():
    """With many draws the mean gradient nears that of the full softmax under a skewed proposal; uncorrected it does not."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=12).astype(np.float32)
    q = np.exp(rng.normal(size=12) * 1.5)
    q /= q.sum()
    target, count = 3, 400
    full = jax.nn.softmax(logits) - jax.nn.one_hot(target, 12)
    drawn = rng.choice(12, (600, count), p=q)

    def loss(x, ids, corrected):
        log_q = jnp.log(jnp.asarray(q, jnp.float32)) * corrected
        scored = jnp.where(ids == target, ranking_loss.MINUS, x[ids])
        return ranking_loss.sampled_softmax(x[target], scored, log_q[target], log_q[ids])

    gradient = lambda corrected: np.mean(jax.vmap(lambda ids: jax.grad(loss)(jnp.asarray(logits), ids, corrected))(jnp.asarray(drawn)), axis=0)
    others = np.arange(12) != target
    shape = lambda g: g[others] / g[others].sum()
    assert np.abs(shape(gradient(1.0)) - shape(np.asarray(full))).max() < 0.02
    assert np.abs(shape(gradient(0.0)) - shape(np.asarray(full))).max() > 0.1


@pytest.mark.parametrize("kind", ["uniform", "popularity", "batch"])
def test_draws_follow_their_distribution(kind):
    made, batch = negatives.sampler(BehaviourConfig(sampler=kind, negatives=3000), DATA), _batch()
    ids, counts, log_q = made.draw(jax.random.key(0), batch)
    assert ids.shape == (3, 1, 3000) and counts.shape == (3, 7, 3000)
    np.testing.assert_array_equal(counts, np.asarray(ids) != batch["targets"][..., None])  # accidental hits, and nothing else
    expected = {
        "uniform": np.ones(ring.ITEMS), "popularity": DATA.counts.astype(float),
        "batch": np.bincount(batch["targets"].ravel(), minlength=ring.ITEMS).astype(float),
    }[kind]  # fmt: skip
    found = np.bincount(np.asarray(ids).ravel(), minlength=ring.ITEMS)
    there = expected > 0
    assert found[~there].sum() == 0
    assert stats.chisquare(found[there], expected[there] / expected.sum() * found.sum()).pvalue > 1e-4
    if kind != "uniform":
        shares = DATA.counts / DATA.counts.sum()
        np.testing.assert_allclose(log_q, np.log(shares)[np.asarray(ids)], rtol=1e-4)
        np.testing.assert_allclose(made.target_log_q(batch["targets"]), np.log(shares)[batch["targets"]], rtol=1e-4)


@pytest.mark.parametrize("kind", ["collaborative", "sequence"])
def test_hard_kinds_draw_from_their_table_and_nothing_that_was_had(kind):
    made, batch = negatives.sampler(BehaviourConfig(sampler=kind, negatives=40, neighbours=6), DATA), _batch()
    ids, counts, _ = (np.asarray(a) for a in made.draw(jax.random.key(1), batch))
    table = made.tables["pool" if kind == "collaborative" else "near"]
    for row in range(3):
        for t in range(7):
            source = table[batch["users"][row, t] if kind == "collaborative" else batch["tokens"][row, t]]
            window = batch["segment_ids"][row] == batch["segment_ids"][row, t]
            had = set(batch["tokens"][row][window]) | set(batch["targets"][row][window])
            allowed = set(source[source >= 0]) - had
            assert set(ids[row, t][counts[row, t]]) <= allowed
            if len(allowed) and (source >= 0).mean() > 0.5:
                assert counts[row, t].any()


class _Model:
    """Fixed hidden states and a fixed table."""

    def __init__(self, hidden, table):
        self.hidden, self.table = hidden, table

    def __call__(self, batch, key=None):
        return self.hidden

    def head(self):
        return self.table, 1.0


def _model(seed=0):
    rng = np.random.default_rng(seed)
    return _Model(jnp.asarray(rng.normal(size=(3, 7, 8)), jnp.float32), jnp.asarray(rng.normal(size=(ring.ITEMS, 8)), jnp.float32))


def test_full_softmax_by_hand():
    model, batch = _model(), _batch()
    logits = np.asarray(model.hidden @ model.table.T, np.float64)
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
    for key in (None, jax.random.key(0)):
        found = next_item.sums(model, batch, key, BehaviourConfig(), None)
        assert float(found["nll"]) == pytest.approx(nll.sum(), rel=1e-5) and float(found["tokens"]) == 21
        assert float(found["correct"]) == (logits.argmax(-1) == batch["targets"]).sum()


@pytest.mark.parametrize("objective", ["sampled", "bce", "gbce"])
@pytest.mark.parametrize("kind", ["uniform", "sequence"])
def test_sampled_objectives_by_hand(objective, kind):
    config = BehaviourConfig(objective=objective, sampler=kind, negatives=5, hard=1, neighbours=8)
    made, model, batch, key = negatives.sampler(config, DATA), _model(), _batch(), jax.random.key(3)
    found = next_item.sums(model, batch, key, config, made)
    ids, counts, log_q = (np.asarray(a) for a in made.draw(jax.random.split(key)[1], batch))
    loss = 0.0
    for row in range(3):
        for t in range(7):
            h = np.asarray(model.hidden[row, t], np.float64)
            drawn = np.broadcast_to(ids[row], (7, 5))[t] if ids.shape[1] == 1 else ids[row, t]
            scores = np.asarray(model.table, np.float64)[drawn[counts[row, t]]] @ h
            positive = np.asarray(model.table, np.float64)[batch["targets"][row, t]] @ h
            if objective == "sampled":
                loss += np.log(np.exp(positive) + np.exp(scores).sum()) - positive
            else:
                beta = 1.0 if objective == "bce" else ranking_loss.gbce_beta(ring.ITEMS, 5, config.gbce_t)
                loss += -(beta * np.log(_sigmoid(positive)) + np.log(1 - _sigmoid(scores)).sum()) / max(len(scores), 1)
    assert float(found["loss"]) == pytest.approx(loss, rel=1e-4) and log_q.max() == 0.0


def test_hard_negatives_are_those_that_score_highest():
    config = BehaviourConfig(objective="sampled", negatives=4, hard=3)
    made, model, batch = negatives.sampler(config, DATA), _model(), _batch()
    ids, counts, log_q = made.draw(jax.random.key(0), batch)
    assert ids.shape[-1] == 12
    scored = negatives.logits(model.hidden, model.table, ids, counts)
    kept, _ = next_item.hardest(scored, log_q, 4)
    np.testing.assert_allclose(kept, -np.sort(-np.asarray(scored), axis=-1)[..., :4])
