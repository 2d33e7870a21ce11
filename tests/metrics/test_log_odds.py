"""Words that tell classes apart, beside the formula as it is published, written out word by word."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rgjax.metrics.log_odds import z_scores

COUNTS = arrays.arrays(int, st.tuples(st.integers(2, 4), st.integers(2, 6)), elements=st.integers(0, 50)).filter(lambda a: (a.sum(0) > 0).all())


@given(COUNTS)
def test_it_is_the_published_formula(counts):
    found = z_scores(counts)
    total = counts.sum(0)
    prior = [len(total) * n / total.sum() for n in total]
    for i in range(counts.shape[0]):
        rest = total - counts[i]
        for w in range(counts.shape[1]):
            y, a = counts[i, w], prior[w]
            one = math.log((y + a) / (counts[i].sum() + sum(prior) - y - a))
            other = math.log((rest[w] + a) / (rest.sum() + sum(prior) - rest[w] - a))
            assert math.isclose(found[i, w], (one - other) / math.sqrt(1 / (y + a) + 1 / (rest[w] + a)), rel_tol=1e-9, abs_tol=1e-9)


def test_a_frequent_word_is_surer_than_a_rare_one_of_the_same_ratio():
    z = z_scores(np.array([[200, 20, 2, 500], [100, 10, 1, 500]]))
    assert z[0, 0] > z[0, 1] > z[0, 2] > 0 > z[0, 3]
    np.testing.assert_allclose(z[0], -z[1])  # two classes are each other's rest
