"""New items placed by what is said of them."""

import dataclasses

import numpy as np
import pytest
import ring

from rgjax.data.interactions import Catalogue
from rgjax.errors import UserError
from rgjax.rank import content


def test_terms_of_both_scripts():
    assert content.terms("Red Shoe", {"size": ["M", "L"]}, [(2, 7)]) == ["red", "shoe", "size=M", "size=L", "2>7"]
    assert content.terms("红鞋A1", {}) == ["红", "鞋", "a1", "红鞋"]
    assert content.terms("Nike运动 鞋", {"颜色": "红"}) == ["nike", "运", "动", "鞋", "运动", "颜色=红"]


def test_features_by_hand():
    known = np.array([True, True, False])
    found = content.features([["a", "b"], ["a", "a"], ["b", "new"]], known).toarray()
    idf = np.log(3 / (1 + np.array([2, 1]))) + 1
    rows = np.array([[np.log(2), np.log(2)], [np.log(3), 0], [0, np.log(2)]]) * idf
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_the_regression_is_ridge_and_known_items_stay():
    rng = np.random.default_rng(0)
    described = content.sparse.csr_array(rng.random((12, 5)))
    vectors, known = rng.normal(size=(12, 3)).astype(np.float32), np.arange(12) < 9
    found = content.placed(described, vectors, known, penalty=0.7)
    x, mean = described.toarray()[known], vectors[known].astype(float).mean(0)
    w = np.linalg.solve(x.T @ x + 0.7 * np.eye(5), x.T @ (vectors[known] - mean))
    np.testing.assert_allclose(found[~known], described.toarray()[~known] @ w + mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[known], vectors[known])


class _Model:
    """Vectors that follow the genre."""

    def item_vectors(self):
        return np.where(np.arange(ring.ITEMS)[:, None] % 2 == 0, [1.0, 0.0], [0.0, 1.0]).astype(np.float32)

    def user_vectors(self, users):
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(users), 1))


def test_a_new_item_stands_beside_those_described_alike():
    data, known = ring.following(20), np.arange(ring.ITEMS) < 20
    scores = content.with_placed_items(_Model(), data, known).scores(np.array([0]))[0]
    assert scores[[20, 22]].min() > scores[[21, 23]].max() + 0.3


def test_a_catalogue_without_words_is_refused():
    bare = dataclasses.replace(ring.following(5), items=Catalogue(["a"] * ring.ITEMS, [""] * ring.ITEMS, [{}] * ring.ITEMS))
    with pytest.raises(UserError, match="No item of the catalogue"):
        content.with_placed_items(_Model(), bare, np.ones(ring.ITEMS, bool))
