"""The folded matrix product, against einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.nn.linear import linear


@pytest.mark.parametrize("equation, inner, outer", [("btd,dha->btha", (6,), (2, 3)), ("btha,had->btd", (2, 3), (5,)), ("btd,df->btf", (6,), (4,))])
def test_values_and_gradients_equal_einsum(equation, inner, outer):
    rng = np.random.default_rng(0)
    x, w, g = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, *inner), (*inner, *outer), (2, 3, *outer)))
    ours, vjp = jax.vjp(lambda x, w: linear(x, w, axes=len(inner)), x, w)
    truth, true_vjp = jax.vjp(lambda x, w: jnp.einsum(equation, x, w), x, w)
    np.testing.assert_allclose(ours, truth, rtol=1e-5, atol=1e-5)
    for a, b in zip(vjp(g), true_vjp(g), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_weights_take_the_activations_type():
    assert linear(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.float32)).dtype == jnp.bfloat16
