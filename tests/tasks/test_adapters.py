"""Several adapters on one model: which row is written by whom, and with which randomness."""

import jax
import numpy as np
import tiny

from rgjax.tasks import run
from rgjax.tasks.adapters import Writers


class Recorder:
    def __init__(self):
        self.rows = []

    def write(self, examples, rows):
        self.rows += list(rows)
        return [[e["item"]] for e in examples]


def test_rows_keep_their_numbers_whichever_adapter_writes_them():
    writers = Writers.__new__(Writers)
    writers._writers = {"": Recorder(), "a": Recorder()}
    examples = [{"item": "0"}, {"item": "1", "adapter": "a"}, {"item": "2"}, {"item": "3", "adapter": "a"}]
    assert writers.write(examples, 10) == [["0"], ["1"], ["2"], ["3"]]
    assert writers._writers[""].rows == [10, 12] and writers._writers["a"].rows == [11, 13]


def test_a_fingerprint_is_of_the_weights_alone():
    params = tiny.params(tiny.factory("llama"), noise=0.02)
    assert run.fingerprint(params) == run.fingerprint(jax.tree.map(lambda x: np.asarray(x).copy(), params))
    leaves, tree = jax.tree.flatten(params)
    nudged = np.array(leaves[0])
    nudged.flat[-1] = np.nextafter(nudged.flat[-1], np.float32(np.inf))
    flipped = np.asarray(leaves[0])[::-1]
    found = {run.fingerprint(jax.tree.unflatten(tree, [first, *leaves[1:]])) for first in (leaves[0], nudged, flipped)}
    assert len(found) == 3
