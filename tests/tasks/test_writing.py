"""What a discriminator reads of a prompt, and the prompts with another value of a control code that it is shown."""

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.tasks.writing import Reasons
from rgjax.train.contrast import Swaps

SWAPS = Swaps.of({"style": [4, 5], "topic": [6, 7, 8]}, 20, 1.0)
PROMPTS = np.array([[0, 0, 4, 10, 11, 7, 12, 13], [10, 11, 12, 13, 14, 15, 16, 17], [0, 0, 0, 0, 0, 0, 0, 5]], np.int32)
GIVEN = {"prompts_BS": jnp.asarray(PROMPTS), "lengths_B": jnp.array([6, 8, 1])}


def test_codes_count_as_much_as_all_else_that_is_read():
    ids, weights = Reasons(8, 4, (1,), SWAPS).read(GIVEN)
    np.testing.assert_array_equal(ids, PROMPTS)
    np.testing.assert_allclose(weights, [[0, 0, 2, 1, 1, 2, 1, 1], [1] * 8, [0] * 7 + [1]])  # two codes beside four others; none; nothing else
    np.testing.assert_array_equal(Reasons(8, 4, (1,)).read(GIVEN).mask, [[0, 0] + [1] * 6, [1] * 8, [0] * 7 + [1]])


def test_one_code_of_each_prompt_gets_another_value():
    seen = set()
    for seed in range(20):
        given, changed = Reasons(8, 4, (1,), SWAPS).miscoded(GIVEN, jax.random.key(seed))
        prompts = np.asarray(given["prompts_BS"])
        assert changed.tolist() == [True, False, True] and (prompts != PROMPTS).sum(1).tolist() == [1, 0, 1]
        np.testing.assert_array_equal(given["lengths_B"], GIVEN["lengths_B"])
        seen.add(tuple(prompts[0][[2, 5]]))
    assert seen == {(5, 7), (4, 6), (4, 8)}
    assert Reasons(8, 4, (1,)).miscoded(GIVEN, jax.random.key(0)) is None
