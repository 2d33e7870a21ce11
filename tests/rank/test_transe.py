"""TransE and its link prediction against sets and loops written out; neighbours by shared entities; new items placed by their triples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shop import shop, tastes

from rgjax.data.interactions import Interactions
from rgjax.errors import UserError
from rgjax.rank import links, transe, triples
from rgjax.rank.recommender import HistoryRecommender


def grid(side=5):
    """Triples of a square of entities: right, down, and 'two right': translations, which the most frequent ends don't tell."""
    at = lambda row, column: row * side + column
    places = [(r, c) for r in range(side) for c in range(side)]
    right = [(at(r, c), 0, at(r, c + 1)) for r, c in places if c + 1 < side]
    down = [(at(r, c), 1, at(r + 1, c)) for r, c in places if r + 1 < side]
    return np.array(right + down + [(at(r, c), 2, at(r, c + 2)) for r, c in places if c + 2 < side], np.int32), side**2


def said(data: Interactions, cold=()) -> Interactions:
    """Two tastes whose items each have two of four entities of their half; `cold` items have triples and no event."""
    facts = [(i, i % 2, 40 + 4 * (i // 20) + k) for i in range(40) for k in (i % 4, (i + 1) % 4)]
    named = [f"e{n}" for n in range(8)]
    data = dataclasses.replace(data, triples=np.array(facts, np.int32), entities=named, relations=["by", "of"])
    return data.where(~np.isin(data.item, cold))


def test_known_ends_are_the_true_ones():
    rng = np.random.default_rng(0)
    facts = rng.integers(0, [6, 3, 6], (40, 3)).astype(np.int32)
    known, by_head, by_tail = transe.known_ends(facts, 6)
    for n, (head, relation, tail) in enumerate(facts):
        assert set(known[[by_head[n]]].indices) == {t for h, r, t in facts if (h, r) == (head, relation)}
        assert set(known[[by_tail[n]]].indices) == {h for h, r, t in facts if (r, t) == (relation, tail)}


def test_corrupted_triples_are_false_have_one_other_end_and_stay_in_their_span():
    facts, entities = grid()
    spans = np.array([[0, 25, 0, 25], [0, 10, 25, 30], [0, 25, 0, 25]])
    pool = np.concatenate([np.arange(25), [1, 2, 3, 20, 21]])
    of = transe.graph(facts, entities, pool, spans)
    picked = jnp.asarray(np.random.default_rng(0).integers(0, len(facts), 4000))
    other, false = map(np.asarray, jax.jit(transe.corrupted)(jax.random.key(1), of, picked))
    true = {tuple(t) for t in facts.tolist()}
    assert [tuple(t) not in true for t in other.tolist()] == false.tolist() and false.mean() > 0.99
    changed = other != facts[np.asarray(picked)]
    assert (changed.sum(1)[false] == 1).all() and not changed[:, 1].any() and 0.45 < changed[false, 2].mean() < 0.55
    down = false & (other[:, 1] == 1)
    assert set(other[down & changed[:, 0], 0]) <= set(range(10)) and set(other[down & changed[:, 2], 2]) <= {1, 2, 3, 20, 21}


def test_the_loss_is_the_margin_of_distances():
    rng = np.random.default_rng(2)
    entities, relations = rng.normal(size=(7, 4)), rng.normal(size=(2, 4))
    true, other = rng.integers(0, [7, 2, 7], (9, 3)), rng.integers(0, [7, 2, 7], (9, 3))
    counts = np.arange(9) != 4
    apart = lambda t: np.linalg.norm(entities[t[:, 0]] + relations[t[:, 1]] - entities[t[:, 2]], axis=1)
    found = transe.ranking_loss(transe.Embedding(jnp.asarray(entities), jnp.asarray(relations)), true, other, counts, 0.7)
    assert float(found) == pytest.approx(np.maximum(0, 0.7 + apart(true) - apart(other))[counts].mean(), rel=1e-5)


def test_filtered_ranks_are_those_of_loops():
    rng = np.random.default_rng(3)
    facts = np.unique(rng.integers(0, [9, 2, 9], (50, 3)), axis=0).astype(np.int32)
    vectors = transe.on_sphere(transe.Embedding(jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.normal(size=(2, 3)))))
    asked, true = facts[:20], {tuple(t) for t in facts.tolist()}
    found = links.ranks(vectors, asked, facts, 9)
    e, r = (np.asarray(v, np.float64) for v in vectors)
    for (head, relation, tail), (head_rank, tail_rank) in zip(asked.tolist(), found, strict=True):
        own = np.linalg.norm(e[head] + r[relation] - e[tail])
        nearer = lambda triple, own=own: triple not in true and np.linalg.norm(e[triple[0]] + r[triple[1]] - e[triple[2]]) <= own
        assert head_rank == 1 + sum(nearer((h, relation, tail)) for h in range(9))
        assert tail_rank == 1 + sum(nearer((head, relation, t)) for t in range(9))


def test_held_out_links_of_a_grid_are_found():
    facts, entities = grid()
    data = dataclasses.replace(shop(items=9), triples=facts, entities=[str(n) for n in range(entities - 9)], relations=("right", "down", "two"))
    found = links.evaluate(data, share=0.15, width=8, epochs=400, batch=64)
    assert found["transe"]["mrr"] > 0.35 > 5 * found["frequent"]["mrr"]  # a grid does not lie flat on a sphere: 1 is out of reach
    left, asked = links.held_out(facts, 0.15, 0)
    assert not {tuple(t) for t in left.tolist()} & {tuple(t) for t in asked.tolist()} and len(asked) == found["transe"]["triples"]


def test_the_floor_counts_ends():
    found = links.frequent(np.array([[0, 0, 1], [2, 0, 1], [2, 1, 0]]), 3, 2)
    assert found.tails([0, 1], np.array([0, 1])).tolist() == [[0, 2, 0], [1, 0, 0]] and found.heads(np.array([0]), [1]).tolist() == [[1, 0, 1]]


def test_tastes_are_learned_and_new_items_placed_by_their_triples():
    cold = np.array([3, 17, 25, 38])
    data = said(tastes(), cold)
    model = transe.fit(data, width=16, epochs=40, batch=128, facts=0.4, rate=0.02)
    assert isinstance(model, HistoryRecommender) and model.losses[-1] < 0.7 * model.losses[0]
    np.testing.assert_allclose(jnp.linalg.norm(model.embedding.entities_ED, axis=1), 1, rtol=1e-5)
    half, users = np.arange(40) // 20, np.arange(60)
    for scores in (model.scores(users), model.from_histories([data.history(u) for u in users])):
        own = half == (users % 2)[:, None]
        scores = np.asarray(scores)
        assert (np.where(own, scores, 0).sum(1) > np.where(own, 0, scores).sum(1)).all()
        placed = scores[:, cold].reshape(60, 2, 2).mean(2)
        assert (placed.argmax(1) == users % 2).mean() > 0.9


def test_histories_are_means_of_the_last_items():
    vectors = transe.on_sphere(transe.Embedding(jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)), jnp.float32), jnp.ones((1, 4))))
    model = transe.TransE(vectors, 6, 2, np.zeros(0))
    history = np.array([5, 5, 0, 1, 2, 3, 4])
    found = np.asarray(model.from_histories([history, history[:0]]))
    e = np.asarray(vectors.entities_ED)
    np.testing.assert_allclose(found[0], -((e[[0, 1, 2, 3, 4]].mean(0) - e[:6]) ** 2).sum(1), atol=1e-5)
    np.testing.assert_allclose(found[1], found[1, 0], atol=1e-6)
    np.testing.assert_allclose(model.scores(np.array([1]))[0], -((e[8] + 1 - e[:6]) ** 2).sum(1), atol=1e-4)


def test_neighbours_share_weighted_entities():
    data = said(tastes())
    entities = [{t for h, _, t in data.triples.tolist() if h == i} for i in range(40)]
    weight = {e: np.log(2) * (np.log(41 / (1 + sum(e in s for s in entities))) + 1) for e in range(40, 48)}
    length = [sum(weight[e] ** 2 for e in s) ** 0.5 for s in entities]
    near = [[sum(weight[e] ** 2 for e in a & b) / length[i] / length[j] for j, b in enumerate(entities)] for i, a in enumerate(entities)]
    history = data.history(3)
    np.testing.assert_allclose(triples.fit(data).from_histories([history])[0], np.sum([near[i] for i in history], axis=0), rtol=1e-5)


def test_items_linked_with_each_other_are_neighbours():
    data = dataclasses.replace(shop(), triples=np.array([[0, 0, 5], [7, 0, 9]], np.int32), entities=["e"], relations=["goes with"])
    scores = np.asarray(triples.fit(data).from_histories([np.array([0]), np.array([5]), np.array([7])]))
    assert scores[0, 5] > 0 and scores[1, 0] > 0 and scores[0].nonzero()[0].tolist() == [0, 5] and scores[2].nonzero()[0].tolist() == [7]


def test_refusals():
    for module in (transe, triples):
        with pytest.raises(UserError, match="reads triples of the items and the shop has none"):
            module.fit(shop())
    with pytest.raises(UserError, match="0 triples, too few"):
        links.evaluate(shop())
    with pytest.raises(UserError, match="diverged in epoch 1"):
        transe.fit(said(tastes()), width=4, epochs=1, rate=float("nan"))
