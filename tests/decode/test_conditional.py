"""Writing inside a step: rows taken apart as they were rendered, texts of the model's distribution, and the relaxed ones' noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from rgjax.config import InputConfig
from rgjax.data import pipeline
from rgjax.data.shape import Shape
from rgjax.data.template import Template
from rgjax.decode import conditional
from rgjax.tasks.reason import sums
from rgjax.tasks.writing import log_probs

V, END, HEAT = 6, 2, 3.0
MADE = tiny.factory("llama", V)
PARAMS = tiny.params(MADE)
PROMPTS = jnp.asarray([[0, 0, 3, 4], [5, 1, 3, 4], [0, 4, 4, 1]], jnp.int32)
LENGTHS = jnp.asarray([2, 4, 3])


def texts_of(seed, length):
    write = jax.jit(lambda key: conditional.sample(MADE.model(PARAMS), key, PROMPTS, LENGTHS, length, (END,)))
    tokens, mask = write(jax.random.key(seed))
    return np.asarray(tokens), np.asarray(mask)


def test_rows_come_apart_as_they_were_rendered(dataset, tokenizer):
    config = InputConfig(length=128, target_length=48, packing=False, buckets="1", batch_size=8)
    template, examples = Template(tokenizer, config), list(itertools.islice(dataset.examples("train"), 8))
    made = [pipeline.as_fed(e, template, config, "causal") for e in examples[:7]]
    batch = pipeline.pad_rows(made, Shape.of(config, "causal", alone=True), 8)
    prompts, lengths, texts, mask = (np.asarray(x) for x in conditional.split({k: jnp.asarray(v) for k, v in batch.items()}, 80, 48))
    for b, example in enumerate(examples[:7]):
        rendered = template.render(example)
        assert prompts[b, 80 - lengths[b] :].tolist() == rendered.prompt_ids and not prompts[b, : 80 - lengths[b]].any()
        assert texts[b][mask[b] > 0].tolist() == rendered.target_ids
    assert lengths[7] == 0 and not mask[7].any()


def test_log_probabilities_are_those_of_training_rows():
    texts = jnp.asarray([[4, 1, 2, 0], [3, 3, 5, 1], [2, 0, 0, 0]], jnp.int32)
    mask = jnp.asarray([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], jnp.int32)
    found = np.asarray(jax.jit(lambda *args: log_probs(MADE.model(PARAMS), *args))(PROMPTS, LENGTHS, texts, mask))
    scored = jax.jit(lambda batch: sums(MADE.model(PARAMS), batch, None)["nll"])
    for b in range(3):
        whole = [*np.asarray(PROMPTS[b])[4 - LENGTHS[b] :], *np.asarray(texts[b])[: int(mask[b].sum())]]
        row = tiny.row([whole[:-1]], 8)
        for t in range(int(mask[b].sum())):
            targets, weights = np.zeros((1, 8), np.int32), np.zeros((1, 8), np.int32)
            at = int(LENGTHS[b]) - 1 + t
            targets[0, at], weights[0, at] = whole[at + 1], 1
            np.testing.assert_allclose(found[b, t], -scored(row | {"targets": targets, "weights": weights}), atol=2e-5)
    assert not found[np.asarray(mask) == 0].any()


def test_texts_end_with_the_end_token_and_have_the_models_distribution():
    tokens, mask = texts_of(0, 7)
    for row, there in zip(tokens, mask, strict=True):
        n = int(there.sum())
        assert (there[:n] == 1).all() and not row[n:].any() and END not in row[: n - 1] and (n == 7 or row[n - 1] == END)
    many = jax.jit(lambda key: conditional.sample(MADE.model(PARAMS), key, jnp.tile(PROMPTS[:1], (20_000, 1)), jnp.full(20_000, 2), 2, (END,)))
    tokens, _ = many(jax.random.key(1))
    found = np.bincount(np.asarray(tokens) @ [V, 1], minlength=V * V) / 20_000
    pairs = jnp.asarray(list(itertools.product(range(V), repeat=2)), jnp.int32)
    whole = jnp.ones((len(pairs), 2), jnp.int32)
    p = np.exp(np.asarray(log_probs(MADE.model(PARAMS), jnp.tile(PROMPTS[:1], (len(pairs), 1)), jnp.full(len(pairs), 2), pairs, whole)))
    expected = np.where(np.asarray(pairs)[:, 0] == END, np.where(np.asarray(pairs)[:, 1] == 0, p[:, 0], 0), p.prod(1))
    assert np.abs(found - expected).sum() < 0.06


def test_completions_keep_their_beginnings_and_go_on_as_the_model_would():
    texts, mask = texts_of(3, 6)
    make = jax.jit(lambda key: conditional.completions(MADE.model(PARAMS), key, PROMPTS, LENGTHS, jnp.asarray(texts), 3, 2, (END,)))
    tokens, there = (np.asarray(x) for x in make(jax.random.key(4)))
    assert tokens.shape == there.shape == (2, 3, 3, 6)
    for k, n, b in itertools.product(range(2), range(3), range(3)):
        kept, row, on = 2 * (k + 1), tokens[k, n, b], int(there[k, n, b].sum())
        assert row[:kept].tolist() == texts[b][:kept].tolist() and not row[on:].any()
        assert END not in row[: on - 1] and (on == 6 or row[on - 1] == END)
        if mask[b].sum() <= kept:
            assert row.tolist() == texts[b].tolist()
    begun = np.asarray([[4, 0], [3, 0], [1, 0]])
    many = jax.jit(lambda key: conditional.completions(MADE.model(PARAMS), key, PROMPTS, LENGTHS, jnp.asarray(begun), 8000, 1, (END,)))
    tokens = np.asarray(many(jax.random.key(5))[0])[0]
    for b in range(3):
        pairs = jnp.asarray([[begun[b, 0], v] for v in range(V)], jnp.int32)
        log_p = log_probs(MADE.model(PARAMS), jnp.tile(PROMPTS[b], (V, 1)), jnp.full(V, LENGTHS[b]), pairs, jnp.ones((V, 2), jnp.int32))
        found = np.bincount(tokens[:, b, 1], minlength=V) / 8000
        assert np.abs(found - np.exp(np.asarray(log_p)[:, 1])).sum() < 0.06


def test_relaxed_rows_are_the_texts_and_their_noise_is_gumbel_noise():
    """Over tokens drawn from the logits, noise given the token must be as noise that decides it: standard Gumbel, entry by entry."""
    logits = jnp.broadcast_to(jnp.asarray([1.5, 0.0, -1.0]), (40_000, 1, 3))
    texts = jax.random.categorical(jax.random.key(0), logits)
    rows = conditional.relaxed(logits, texts, jax.random.key(1), HEAT)
    np.testing.assert_allclose(rows, jax.nn.one_hot(texts, 3), atol=1e-6)

    def soft_rows(logits_NV, texts_N1, key):
        """softmax((logits + noise) / heat), from the gradients s (1 - s) / heat and -s s' / heat of its entries."""
        one = lambda row, text, k: jax.jacobian(lambda x: conditional.relaxed(x[None, None], text[None], k, HEAT)[0, 0])(row)
        return jax.vmap(one)(logits_NV, texts_N1, jax.random.split(key, len(texts_N1)))

    jacobian = np.asarray(jax.jit(soft_rows)(logits[:4000, 0], texts[:4000], jax.random.key(2)))
    pair = lambda i, j: -jacobian[:, i, j] * HEAT  # s_i s_j
    s = np.stack([np.sqrt(pair(i, j) * pair(i, k) / pair(j, k)) for i, j, k in ((0, 1, 2), (1, 0, 2), (2, 0, 1))], axis=1)
    np.testing.assert_allclose(s.sum(1), 1, atol=2e-2)
    assert (s.argmax(1) == np.asarray(texts[:4000, 0])).mean() > 0.999
    # Differences of two entries of (logits + noise): logistic around the difference of the logits.
    for i, j in ((0, 1), (1, 2)):
        difference = HEAT * np.log(s[:, i] / s[:, j])
        np.testing.assert_allclose(np.mean(difference), float(logits[0, 0, i] - logits[0, 0, j]), atol=0.12)
        np.testing.assert_allclose(np.std(difference), np.pi / np.sqrt(3), atol=0.12)
