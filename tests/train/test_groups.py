"""Learning rates by group against AdamW written out in NumPy, one unstacked layer at a time."""

import jax
import numpy as np
import pytest
import tiny

from rgjax.config import OptimizerConfig
from rgjax.errors import UserError
from rgjax.train import groups, optimizer

PLAIN = {"learning_rate": 0.01, "warmup_steps": 0, "schedule": "constant", "weight_decay": 0.3, "beta1": 0.9, "beta2": 0.95, "clip": 0.0}


def names_of(tree):
    return [".".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def adamw(start, grads, rate, decayed):
    """Float64 AdamW of one array over its gradients, as torch does it with a group's own learning rate."""
    x, m, v = start.astype(np.float64), 0.0, 0.0
    for n, g in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * np.square(g, dtype=np.float64)
        x = x * (1 - rate * 0.3 * decayed) - rate * (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.95**n)) + 1e-8)
    return x


def check(family, expected, **options):
    """Two steps on random gradients; `expected(name, layer)` is the factor of a parameter (layer None: it is not stacked)."""
    made = tiny.factory(family)
    tree, rng = tiny.params(made), np.random.default_rng(0)
    gradients = [jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), tree) for _ in range(2)]
    config = OptimizerConfig(**PLAIN, **options)
    groups.check(config, made)
    tx = optimizer.make(config, 10)
    state, now = tx.init(tree), tree
    step = jax.jit(tx.update)
    for g in gradients:
        updates, state = step(g, state, now)
        now = jax.tree.map(np.add, now, updates)
    leaves = zip(names_of(tree), *map(jax.tree.leaves, (tree, now, *gradients)), strict=True)
    for name, start, got, *gs in leaves:
        start, decayed = np.asarray(start), name.split(".")[-1] not in optimizer.UNDECAYED
        parts = range(len(start)) if ".blocks." in name else [None]
        for i in parts:
            pick = lambda x, i=i: np.asarray(x) if i is None else np.asarray(x)[i]
            wanted = adamw(pick(start), [pick(g) for g in gs], 0.01 * expected(name, i), decayed)
            np.testing.assert_allclose(pick(got), wanted, rtol=2e-5, atol=2e-6, err_msg=f"{name} {i}")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_layer_decay_of_a_decoder(family):
    def expected(name, layer):  # two layers: 0.5 ** (3 - depth)
        if layer is not None:
            return {0: 0.25, 1: 0.5}[layer]
        return 1.0 if name.startswith("decoder.norm") or name == "embedding.output" else 0.125

    check(family, expected, layer_decay=0.5)


def test_encoder_and_decoder_count_their_own_layers():
    def expected(name, layer):  # three encoder layers, two of the decoder
        if layer is not None:
            return 0.5 ** ((3 if name.startswith("encoder") else 2) - layer)
        if name.endswith(".relative"):
            return {"encoder.relative": 0.5**4, "decoder.relative": 0.5**3}[name]
        return 0.5**4 if name == "embedding.tokens" else 1.0

    check("t5", expected, layer_decay=0.5)


def test_bart_s_two_entrances_are_below_their_own_stacks():
    tree = tiny.params(tiny.factory("bart"))
    found = dict(zip(names_of(tree), jax.tree.leaves(groups.factors(OptimizerConfig(layer_decay=0.5), tree)), strict=True))
    assert found["embedding.places"] == found["embedding.norm.scale"] == 0.5**4
    assert found["entrance.places"] == 0.5**3


def test_what_is_added_to_a_layer_learns_as_the_layer_does():
    added = {"adapter": {"decoder": {"blocks": {"wq": {"a": np.ones((2, 3, 4))}}}, "embedding": {"table": np.ones((2, 3))}}}
    found = groups.factors(OptimizerConfig(layer_decay=0.5, lr_groups="^adapter=2"), added)["adapter"]
    assert found["decoder"]["blocks"]["wq"]["a"].ravel().tolist() == [0.5, 1.0] and found["embedding"]["table"] == 0.25


def test_groups_by_name_the_first_match_counts_and_zero_freezes():
    def expected(name, layer):
        return 3.0 if "wq" in name else 0.0 if "attention" in name else 0.1 if name.startswith("embedding.") else 1.0

    check("llama", expected, lr_groups=r"w[q]$=3; attention=0; ^embedding\.=0.1")


def test_groups_and_layers_multiply():
    expected = lambda name, layer: (2.0 if "mlp" in name else 1.0) * (
        0.5 ** (2 - layer) if layer is not None else 1.0 if name.startswith("decoder.norm") or name == "embedding.output" else 0.125
    )
    check("llama", expected, lr_groups="mlp=2", layer_decay=0.5)


def test_without_groups_the_state_is_as_it_was():
    tree = {"w_in": np.ones((2, 2), np.float32)}
    shapes = lambda **o: jax.tree.structure(optimizer.make(OptimizerConfig(**o), 5).init(tree))
    assert shapes() == shapes(layer_decay=1.0, lr_groups="") != shapes(layer_decay=0.9)


@pytest.mark.parametrize(
    "text, words",
    [
        ("attention", "'attention'; write PATTERN=FACTOR"),
        ("attention=fast", "'attention=fast'"),
        ("attention=-1", "'attention=-1'"),
        ("attention=nan", "'attention=nan'"),
        ("(=1", r"'\(=1'"),
        ("=1", "'=1'"),
        ("attention=1;atention=2", "'atention', which matches no trained parameter"),
        ("attention=1;wq=2", "'wq', which matches no trained parameter that an earlier"),
    ],
)
def test_a_group_that_is_none_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        groups.check(OptimizerConfig(lr_groups=text), tiny.factory("llama"))


def test_what_is_not_trained_has_no_rate():
    made, embedding = tiny.factory("llama"), lambda path: path.startswith("embedding")
    groups.check(OptimizerConfig(lr_groups="embedding=0.1"), made, embedding)
    refused = {"no trained parameter": OptimizerConfig(lr_groups="attention=0.1"), "--layer_decay=0.5": OptimizerConfig(layer_decay=0.5)}
    for words, config in refused.items():
        groups.check(config, made)
        with pytest.raises(UserError, match=words):
            groups.check(config, made, embedding)
