"""A model in int8 computes what the model of its dense matrices computes, whatever the architecture, with and without an adapter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rgjax import trees
from rgjax.config import AdapterConfig
from rgjax.decode import prompt
from rgjax.models import quantized
from rgjax.models.adapted import AdaptedFactory
from rgjax.tasks.reason import sums

FAMILIES = ("llama", "qwen3", "gpt2", "t5", "t5_tied_relu", "bart")


def dense(factory, weights):
    """The weights with every matrix and table of int8 written out as floats."""
    light = quantized.QuantizedFactory(factory.base)
    found = {}
    for path, leaf in trees.flat(weights):
        owner, _, part = path.rpartition(".")
        if owner not in light.paths:
            found[path] = leaf
        elif part == "q":
            s = trees.at(weights, owner)["s"]
            found[owner] = leaf.astype(jnp.float32) * np.expand_dims(s, quantized.input_axes(owner))
    return trees.nested(found.items())


def bytes_of(tree):
    return sum(a.nbytes for a in jax.tree.leaves(tree))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_decoding_are_those_of_the_dense_matrices(family):
    made = tiny.factory(family)
    params = tiny.params(made)
    light, weights = quantized.lighter(made), quantized.in_int8(made, params)
    kinds = {str(leaf.dtype) for _, leaf in trees.flat(weights)}
    assert kinds == {"int8", "float32"} and bytes_of(weights) < 0.6 * bytes_of(params)
    plain = dense(made, weights)
    for path, leaf in trees.flat(params):
        assert np.abs(leaf - trees.at(plain, path)).max() <= np.abs(leaf).max() / 254 * 1.001, path
    batch = tiny.training_batch(made, 3, 16)
    ours, theirs = (jax.jit(lambda p, f=f: sums(f.model(p), batch, None))(p) for f, p in ((light, weights), (made, plain)))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5)

    def written(factory, p):
        model = factory.model(p)
        filled = prompt.prefill(model, jnp.asarray([[0, 5, 9, 3], [7, 8, 2, 1]]), jnp.array([3, 4]))
        logits, caches = [], prompt.empty_caches(model, 2, 3)
        for i, token in enumerate((4, 6, 2)):
            new, caches = prompt.advance(model, filled, caches, jnp.array([token, token]), jnp.int32(i))
            logits.append(new)
        return jnp.stack(logits)

    ours, theirs = (jax.jit(lambda p, f=f: written(f, p))(p) for f, p in ((light, weights), (made, plain)))
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("kind", ["lora", "ia3", "prompt", "bottleneck"])
def test_an_adapter_goes_on_top(kind):
    base = tiny.factory("llama")
    made = AdaptedFactory(base, AdapterConfig(adapter=kind, rank=2, virtual_tokens=3, dora=kind == "lora"))
    rng = np.random.default_rng(0)
    params = made.fresh(jax.random.key(0), tiny.params(base))
    params["adapter"] = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, 0.1, a.shape), a.dtype), params["adapter"])
    light, weights = quantized.lighter(made), quantized.in_int8(made, params)
    batch = tiny.training_batch(made, 2, 16)
    both = ((light, weights), (made, dense(made, weights)))
    ours, theirs = (jax.jit(lambda p, f=f: sums(f.model(p), batch, None))(p) for f, p in both)
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-5)
    assert made.base is base  # the factory that was given stays as it was
