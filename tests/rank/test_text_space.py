"""Texts as short vectors, against a dense singular value decomposition."""

import bundle_shop
import numpy as np
import pytest

from rgjax.data.interactions import Catalogue, build
from rgjax.errors import UserError
from rgjax.rank import content, text_space

DATA, _ = bundle_shop.grouped()


def _shop(titles):
    items = Catalogue([str(n) for n in range(len(titles))], titles, [{}] * len(titles))
    return build(["u"], items, [0], [0], [0])


def test_similarities_are_those_of_the_main_directions():
    rng = np.random.default_rng(0)
    data = _shop([" ".join(f"word{n}" for n in rng.choice(30, rng.integers(1, 9))) for _ in range(40)])  # no two directions weigh the same
    described = content.described(data)
    found, rows = text_space.fit(data, 12), text_space.vocabulary(data).rows(described).toarray()
    left, strength, _ = np.linalg.svd(rows, full_matrices=False)
    wanted = left[:, :12] * strength[:12]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    vectors = found.of(described)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors @ vectors.T, wanted @ wanted.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_directions_are_the_same_each_time_and_strongest_first():
    """Also where many weigh the same, as in a shop whose groups are alike, or are more than are followed."""
    rng = np.random.default_rng(0)
    many = _shop([" ".join(f"word{n % 20 if rng.random() < 0.5 else n}" for n in rng.integers(160, size=6)) for _ in range(110)])
    for data, width in ((DATA, 12), (many, 20)):
        one, two = text_space.fit(data, width).basis, text_space.fit(data, width).basis
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one.T @ one, np.eye(width), atol=1e-5)
        strength = np.linalg.norm(text_space.vocabulary(data).rows(content.described(data)) @ one, axis=0)
        exact = np.linalg.svd(text_space.vocabulary(data).rows(content.described(data)).toarray(), compute_uv=False)[:width]
        np.testing.assert_allclose(strength, exact, rtol=0.01)


def test_what_no_term_is_known_of_is_zeros():
    found = text_space.fit(DATA, 8).of([["nowhere", "else"], [], content.terms("THING 3", {})])
    assert not found[:2].any() and np.linalg.norm(found[2]) == pytest.approx(1, abs=1e-5)


def test_few_descriptions_are_filled_up_with_zeros():
    found = text_space.fit(_shop(["red lamp", "red lamp", "blue desk", ""]), 10)
    vectors = found.of(content.described(_shop(["red lamp", "red lamp", "blue desk", ""])))
    assert vectors.shape == (4, 10) and np.isfinite(vectors).all() and not vectors[3].any()
    assert vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5) and vectors[0] @ vectors[2] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("titles", (["", ""], ["lamp", "lamp"], ["lamp desk"]))
def test_items_that_cannot_be_told_apart_are_refused(titles):
    with pytest.raises(UserError, match="add some"):
        text_space.fit(_shop(titles), 4)
