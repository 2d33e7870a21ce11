"""Held-out items are ranked, listed and believed in as a loop over users would have it."""

import numpy as np
import ring
from scipy.special import softmax

from rgjax.data.interactions import last_out
from rgjax.rank import evaluate


class _Scores:
    def __init__(self, scores):
        self.table = scores

    def scores(self, users):
        return self.table[users]


def test_ranks_lists_and_confidence_are_those_of_a_loop():
    seen, held = last_out(ring.following(30))
    held[:3] = -1
    rng = np.random.default_rng(0)
    table = rng.normal(size=(30, ring.ITEMS)).astype(np.float32)
    found = evaluate.held_out(_Scores(table), seen, held, 5)
    for row, user in enumerate(found.users):
        kept = sorted(set(range(ring.ITEMS)) - set(seen.history(user).tolist()), key=lambda i: -table[user, i])
        assert found.lists[row, : min(5, len(kept))].tolist() == kept[:5]
        np.testing.assert_allclose(found.confidence[row], softmax(table[user, kept])[0], rtol=1e-5)
        others = [i for i in kept if i != held[user]]
        assert found.ranks[row] == 1 + sum(table[user, i] >= table[user, held[user]] for i in others)
    assert found.users.tolist() == list(range(3, 30))
