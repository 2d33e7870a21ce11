"""Norms against their definitions in float64, and against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.nn.norms import Norm, normalised


def module(kind, width, eps, rng):
    norm = Norm(width, kind, eps)
    norm.scale[...] = jnp.asarray(rng.normal(1, 0.5, width), jnp.float32)
    if norm.shift is not None:
        norm.shift[...] = jnp.asarray(rng.normal(0, 0.5, width), jnp.float32)
    return norm


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_norms_equal_their_definition(kind, eps):
    rng = np.random.default_rng(0)
    x, norm = rng.normal(3, 2, (2, 3, 7)), module(kind, 7, eps, rng)
    centred = x - x.mean(-1, keepdims=True) if kind == "layernorm" else x
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * np.asarray(norm.scale[...])
    if kind == "layernorm":
        expected = expected + np.asarray(norm.shift[...])
    np.testing.assert_allclose(norm(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("bfloat16", 2e-2)])
def test_gradients_are_those_of_the_definition_and_can_be_differentiated_again(kind, dtype, tolerance):
    """The backward pass is written out; here autodiff of the definition, once and twice (a gradient penalty)."""
    rng = np.random.default_rng(2)
    norm, shape = module(kind, 8, 1e-3, rng), (2, 3, 8)
    shift = jnp.zeros(8) if norm.shift is None else norm.shift[...]
    x, weigh = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))

    def ours(x, scale, shift):
        return normalised(1e-3, x, scale, shift if kind == "layernorm" else None)

    def definition(x, scale, shift):
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True) if kind == "layernorm" else x32
        y = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * scale
        return (y + shift if kind == "layernorm" else y).astype(x.dtype)

    def gradients(function):
        once = jax.grad(lambda *read: jnp.sum((function(*read) * weigh).astype(jnp.float32)), argnums=(0, 1, 2))
        twice = jax.grad(lambda *read: sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in once(*read)), argnums=(0, 1))
        read = (x, norm.scale[...], shift)
        return [*once(*read), *twice(*read)]

    for got, wanted in zip(gradients(ours), gradients(definition), strict=True):
        assert got.dtype == wanted.dtype
        got, wanted = (np.asarray(g, np.float32) for g in (got, wanted))
        assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


def test_half_precision_goes_in_and_out_and_float32_between():
    norm = Norm(64, "rmsnorm", 1e-6)
    x = jnp.full(
        (1, 64), 1e20, jnp.bfloat16
    )  # its square is beyond bfloat16's sums of squares, not beyond float32's range of means
    y = norm(x.astype(jnp.float32) * 1e-4)
    assert norm(x * jnp.bfloat16(1e-4)).dtype == jnp.bfloat16
    np.testing.assert_allclose(y, 1.0, rtol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_norms_equal_torch(kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, norm = rng.normal(1, 2, (2, 5, 9)).astype(np.float32), module(kind, 9, 1e-5, rng)
    tensor = lambda a: torch.tensor(np.asarray(a))
    if kind == "rmsnorm":
        theirs = torch.nn.functional.rms_norm(tensor(x), (9,), tensor(norm.scale[...]), 1e-5)
    else:
        theirs = torch.nn.functional.layer_norm(tensor(x), (9,), tensor(norm.scale[...]), tensor(norm.shift[...]), 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x)), theirs.numpy(), rtol=1e-5, atol=1e-5)
