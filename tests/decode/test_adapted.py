"""Decoding with adapters: cached, in padded batches and with several candidates, against recomputation of whole sequences."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny
from recompute import log_probabilities

from rgjax.config import AdapterConfig, DecodeConfig
from rgjax.decode.writer import Writer
from rgjax.models.adapted import AdaptedFactory

KINDS = {
    "lora": {"adapter": "lora", "rank": 2},
    "dora": {"adapter": "lora", "rank": 2, "dora": True},
    "ia3": {"adapter": "ia3"},
    "prefix": {"adapter": "prefix", "virtual_tokens": 3},
    "prompt": {"adapter": "prompt", "virtual_tokens": 3},
    "vectors": {"adapter": "vectors", "virtual_tokens": 3},
    "houlsby": {"adapter": "bottleneck", "reduction": 4},
    "pfeiffer": {"adapter": "bottleneck", "reduction": 4, "bottleneck": "pfeiffer"},
}
CASES = [(f, k) for f in ("llama", "gpt2", "t5_tied_relu") for k in KINDS if not (k == "prefix" and f.startswith("t5"))]


def writing(factory, weights, tokenizer, letters) -> Writer:
    """A writer of six tokens that takes few of them."""
    writer = Writer(factory, weights, tokenizer, DecodeConfig(decode_batch=4, max_new_tokens=6))
    banned = ~np.isin(np.arange(tokenizer.vocab_size), [*writer.rules.end_ids, *letters])
    writer.rules = dataclasses.replace(writer.rules, banned_V=writer.rules.banned_V | banned)
    return writer


@pytest.fixture(scope="module")
def without(tokenizer, prompts, letters):
    """without(family) -> what the model writes without an adapter."""

    @functools.cache
    def write(family):
        base = tiny.factory(family, tokenizer.vocab_size)
        return writing(base, tiny.params(base), tokenizer, letters).write(prompts(5))

    return write


@pytest.mark.parametrize("family, kind", CASES)
def test_greedy_equals_the_argmax_without_a_cache(family, kind, without, tokenizer, prompts, letters, monkeypatch):
    base = tiny.factory(family, tokenizer.vocab_size)
    factory = AdaptedFactory(base, AdapterConfig(**KINDS[kind]), vector_width=5 if kind == "vectors" else 0)
    weights, rng = factory.fresh(jax.random.key(0), tiny.params(base)), np.random.default_rng(0)
    weights = {**weights, "adapter": jax.tree.map(lambda a: a + rng.normal(0, 0.2, a.shape).astype(np.float32), weights["adapter"])}
    writer = writing(factory, weights, tokenizer, letters)
    virtual = 3 if kind in ("prompt", "vectors") else 0
    rendered = [dataclasses.replace(r, prompt_ids=[0] * virtual + r.prompt_ids) for r in prompts(5)]
    if kind == "vectors":
        rendered = [dataclasses.replace(r, vector=rng.normal(0, 1, 5).astype(np.float32)) for r in rendered]
    differing = 0
    for one, (hypothesis,), (other,) in zip(rendered, writer.write(rendered), without(family), strict=True):
        if kind == "vectors":
            with_vector = lambda batch, v=one.vector: batch | {"vectors": v[None, None]}
            monkeypatch.setattr(tiny, "hidden", lambda made, tree, batch, add=with_vector: np.asarray(tiny.forward(made)(tree, add(batch))))
        out, total = [], 0.0
        while len(out) < 6:
            scores = log_probabilities(writer, one.prompt_ids, out)
            total += scores.max()
            if scores.argmax() == tokenizer.eos_id:
                break
            out.append(int(scores.argmax()))
        assert hypothesis.ids == out and hypothesis.score == pytest.approx(total, abs=2e-3)
        differing += hypothesis.score != pytest.approx(other.score, abs=1e-2)
    assert differing  # the adapter is in the decoded model, too


@pytest.mark.parametrize("kind", ["lora", "prefix", "prompt"])
def test_candidates_of_one_input_share_its_virtual_tokens(kind, tokenizer, prompts):
    base = tiny.factory("llama", tokenizer.vocab_size)
    factory = AdaptedFactory(base, AdapterConfig(**KINDS[kind]))
    weights = factory.fresh(jax.random.key(0), tiny.params(base))
    virtual = 3 if kind == "prompt" else 0
    rendered = [dataclasses.replace(r, prompt_ids=[0] * virtual + r.prompt_ids) for r in prompts(3)]
    config = DecodeConfig(method="sample", n_best=3, decode_batch=6, max_new_tokens=6)
    several = Writer(factory, weights, tokenizer, config).write(rendered)
    for r, hypotheses in enumerate(several):
        alone = Writer(factory, weights, tokenizer, dataclasses.replace(config, decode_batch=3)).write(rendered[r : r + 1], r)
        assert [h.ids for h in hypotheses] == [h.ids for h in alone[0]]
