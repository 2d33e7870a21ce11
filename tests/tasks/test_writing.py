"""What a discriminator reads of a prompt, and the prompts with the codes of other rows that it is shown."""

import jax
import jax.numpy as jnp
import numpy as np

from rgjax.tasks.writing import Reasons
from rgjax.train.contrast import Swaps

CODE_V = Swaps.of({"style": [4, 5], "topic": [6, 7, 8]}, 20, 1.0).code_V
PROMPTS = np.array([[0, 0, 4, 10, 11, 7, 12, 13], [10, 11, 12, 13, 14, 15, 16, 17], [0, 0, 0, 0, 0, 0, 0, 5]], np.int32)
GIVEN = {"prompts_BS": jnp.asarray(PROMPTS), "lengths_B": jnp.array([6, 8, 1])}


def test_codes_count_as_much_as_all_else_that_is_read():
    ids, weights = Reasons(8, 4, (1,), CODE_V).read(GIVEN)
    np.testing.assert_array_equal(ids, PROMPTS)
    np.testing.assert_allclose(weights, [[0, 0, 2, 1, 1, 2, 1, 1], [1] * 8, [0] * 7 + [1]])  # two codes beside four others; none; nothing else
    np.testing.assert_array_equal(Reasons(8, 4, (1,)).read(GIVEN).mask, [[0, 0] + [1] * 6, [1] * 8, [0] * 7 + [1]])


def test_prompts_get_the_codes_of_another_row():
    """What the other row has no value of stays."""
    seen = set()
    for seed in range(20):
        given, changed = Reasons(8, 4, (1,), CODE_V).miscoded(GIVEN, jax.random.key(seed))
        prompts = np.asarray(given["prompts_BS"])
        np.testing.assert_array_equal(changed, (prompts != PROMPTS).any(1))
        np.testing.assert_array_equal(given["lengths_B"], GIVEN["lengths_B"])
        np.testing.assert_array_equal(np.delete(prompts[0], 2), np.delete(PROMPTS[0], 2))
        np.testing.assert_array_equal(prompts[1], PROMPTS[1])
        seen.add((int(prompts[0, 2]), int(prompts[2, 7])))
    assert seen == {(5, 5), (4, 4)}  # one row further, or two
    assert Reasons(8, 4, (1,)).miscoded(GIVEN, jax.random.key(0)) is None
    assert Reasons(8, 4, (1,), CODE_V).miscoded({name: x[:1] for name, x in GIVEN.items()}, jax.random.key(0)) is None


def test_other_codes_are_as_frequent_as_the_right_ones():
    codes = np.repeat([4, 5], [12, 4])
    given = {"prompts_BS": jnp.asarray(codes[:, None], jnp.int32), "lengths_B": jnp.ones(16, jnp.int32)}
    others, changed = Reasons(1, 4, (1,), CODE_V).miscoded(given, jax.random.key(3))
    np.testing.assert_array_equal(np.sort(others["prompts_BS"][:, 0]), codes)
    assert 0 < changed.sum() <= 8
