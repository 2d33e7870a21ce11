"""profiling.topk at a tiny size: both sides find what a sort of all scores finds."""

import subprocess
import sys

import pytest
from environment import ROOT


@pytest.mark.parametrize("seen", [0, 7])
def test_both_sides_are_checked_and_timed(seen, benchmark, sound):
    told, _ = benchmark("topk", "--users=300", "--items=2000", "--width=8", "--k=20", "--rounds=3", f"--seen={seen}")
    sound(told | {"versions": told["versions"] | {"torch": ""}}, "ours", "peer")  # torch is no part of it
    assert told["places_with_another_item"] < 10 and told["sides"]["ours"]["peak_bytes"] > 0 and "numpy" in told["versions"]


PEER = """
import numpy as np
from profiling import topk
topk.USERS, topk.ITEMS = 4, 9
rng = np.random.default_rng(0)
users, items = rng.standard_normal((10, 3), np.float32), rng.standard_normal((40, 3), np.float32)
seen = topk.sparse.csr_array((rng.random((10, 40)) < 0.2).astype(np.float32))
scores = np.where(seen.toarray() > 0, -np.inf, users @ items.T)
found = topk.in_numpy(users, items, seen, 12)
np.testing.assert_array_equal(found[0], np.argsort(-scores, axis=1)[:, :12])
wrong = (found[0].copy(), found[1])
wrong[0][3, 0] = np.setdiff1d(np.arange(40), found[0][3])[0]
assert topk.check(found, found) == 0
try:
    topk.check(wrong, found)
except topk.UserError as error:
    assert "row 3" in str(error)
else:
    raise AssertionError("a wrong item went unseen")
"""


def test_the_peer_sorts_all_scores():
    """In a process of its own: benchmarks define flags of the same names."""
    done = subprocess.run([sys.executable, "-c", PEER], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
