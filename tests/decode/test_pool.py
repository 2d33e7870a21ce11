"""A file of ragged texts through a pool: what is written is what batches write, and a batch stays full."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    "options", [{}, {"method": "sample", "n_best": 2, "decode_batch": 16, "top_p": 0.5}, {"no_repeat_ngram": 2, "min_length": 3}]
)
def test_what_is_written_does_not_depend_on_who_shares_the_pool(options, writer, prompts, letters, monkeypatch):
    options = {"max_new_tokens": 12, "decode_batch": 8, "ends": (letters[6], letters[7])} | options
    made = writer("gpt2", allowed=letters[:6], **options)
    inputs, called = prompts(29, seed=3), []
    pooled = made._put
    monkeypatch.setattr(made, "_put", lambda *args: called.append(args) or pooled(*args))
    found = made.write(inputs)
    monkeypatch.setattr(made, "_refills", lambda count: False)
    batches = made.write(inputs)
    assert [[h.ids for h in f] for f in found] == [[h.ids for h in f] for f in batches]
    scores = [[[h.score for h in f] for f in written] for written in (found, batches)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert [[h.ended for h in f] for f in found] == [[h.ended for h in f] for f in batches]
    assert len(called) == -(-29 // 2)  # two of eight places at a time
    assert len({len(h.ids) for f in found for h in f}) > 2  # they are ragged


def test_a_pool_takes_fewer_steps_than_batches(writer, prompts, letters, monkeypatch):
    made = writer("gpt2", allowed=letters[:6], ends=(letters[6], letters[7]), max_new_tokens=24, decode_batch=8)
    steps, gone_on, inputs = [], made._go, prompts(48, seed=5)
    monkeypatch.setattr(made, "_go", lambda *args: steps.append((held := gone_on(*args))[0].at) or held)
    texts = [len(h.ids) + h.ended for (h,) in made.write(inputs)]
    order = sorted(range(48), key=lambda r: len(inputs[r].prompt_ids))
    batches = sum(max(texts[r] for r in order[at : at + 8]) - 1 for at in range(0, 48, 8))
    assert sum(n - 1 for n in texts) / 8 <= int(steps[-1]) < batches


def test_longer_prompts_widen_the_pool(writer, prompts, letters):
    made = writer("llama", allowed=letters[:6], ends=(letters[6], letters[7]), decode_batch=4, max_new_tokens=6)
    inputs = prompts(9, seed=7)
    inputs[4].prompt_ids[:] = (inputs[4].prompt_ids * 70)[:70]  # beyond the first bucket of 64
    together = made.write(inputs)
    for r, rendered in enumerate(inputs):
        assert made.write([rendered], first_row=r)[0][0].ids == together[r][0].ids

