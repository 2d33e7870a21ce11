"""Greedy decoding and sampling against recomputation and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recompute import log_probabilities

from rgjax.config import DecodeConfig
from rgjax.decode.sampling import choose


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "t5_tied_relu", "seq2seq_rotary"])
def test_greedy_equals_the_argmax_without_a_cache(family, writer, prompts, letters):
    made = writer(family, allowed=letters, layers=2)
    ended = 0
    for rendered, (hypothesis,) in zip(prompts(6), made.write(prompts(6)), strict=True):
        out, total = [], 0.0
        while len(out) < 8:
            scores = log_probabilities(made, rendered.prompt_ids, out)
            total += scores.max()
            if scores.argmax() == made.tokenizer.eos_id:
                ended += 1
                break
            out.append(int(scores.argmax()))
        assert hypothesis.ids == out
        assert hypothesis.score == pytest.approx(total, abs=1e-3) and hypothesis.ended == (len(out) < 8)
    assert ended < 6


def test_any_of_several_ends_stops_a_row(writer, prompts, letters, tokenizer):
    ends, seen = (letters[6], tokenizer.eos_id), set()
    made = writer(allowed=letters[:6], ends=ends, max_new_tokens=12)
    for rendered, (hypothesis,) in zip(prompts(12), made.write(prompts(12)), strict=True):
        out = []
        while len(out) < 12 and (best := int(log_probabilities(made, rendered.prompt_ids, out).argmax())) not in ends:
            out.append(best)
        seen |= {best} & set(ends)
        assert (hypothesis.ids, hypothesis.ended) == (out, len(out) < 12)
    assert letters[6] in seen


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_draw_does_not_depend_on_the_batch(top_p, writer, prompts):
    how = {"method": "sample", "n_best": 2, "top_p": top_p}
    made, alone = writer(**how), writer(**how, decode_batch=2)
    inputs = prompts(5)
    together = [[h.ids for h in found] for found in made.write(inputs)]
    for r, rendered in enumerate(inputs):
        assert [h.ids for h in alone.write([rendered], first_row=r)[0]] == together[r]
    assert together[0][0] != together[0][1]
    again = [[h.ids for h in found] for found in made.write(inputs[::-1])]
    assert again != together[::-1]  # other rows, other draws


def allowed(logits, top_k, top_p):
    """Probabilities after the cuts, the slow way: sort, keep k, keep until the mass is reached, renormalise."""
    p = np.exp(logits - np.logaddexp.reduce(logits))
    order = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or len(p)]
    mass = sum(p[i] for i in order)
    kept, so_far = [], 0.0
    for i in order:
        if so_far >= top_p:
            break
        kept.append(i)
        so_far += p[i] / mass
    return np.array([p[i] if i in kept else 0.0 for i in range(len(p))]) / sum(p[i] for i in kept)


@pytest.mark.parametrize(
    "top_k, top_p, temperature",
    [(0, 1.0, 1.0), (3, 1.0, 1.0), (0, 0.6, 1.0), (4, 0.7, 0.5), (1, 1.0, 2.0), (0, 0.01, 1.0), (99, 0.9, 2.0)],
)
def test_draws_follow_the_cut_distribution(top_k, top_p, temperature):
    logits, draws = np.random.default_rng(top_k).normal(0, 1.5, 9), 20_000
    config = DecodeConfig(method="sample", top_k=top_k, top_p=top_p, temperature=temperature)
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = np.asarray(choose(jnp.tile(jnp.asarray(logits, jnp.float32), (draws, 1)), keys, jnp.int32(3), config))
    expected, found = allowed(logits / temperature, top_k, top_p), np.bincount(drawn, minlength=9) / draws
    assert ((found > 0) <= (expected > 0)).all()
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / draws)


def test_forbidden_tokens_are_never_drawn():
    logits = jnp.tile(jnp.array([0.0, -1e30, 1.0, -1e30]), (2000, 1))
    for options in ({"temperature": 5.0}, {"temperature": 0.1, "top_k": 3}, {"top_p": 0.99}):
        drawn = choose(logits, jax.random.split(jax.random.key(0), 2000), jnp.int32(0), DecodeConfig(method="sample", **options))
        assert set(np.asarray(drawn).tolist()) <= {0, 2}
