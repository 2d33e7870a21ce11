"""Guided decoding against scores computed anew from both whole prompts."""

import dataclasses

import numpy as np
import pytest
from recompute import next_logits

SCALE = 2.5


def with_plain(rendered, prompts):
    return [dataclasses.replace(r, plain_ids=p.prompt_ids) for r, p in zip(rendered, prompts, strict=True)]


def guided(made, rendered, out) -> np.ndarray:
    """Log-probabilities [V] after `out`, of what may be written."""
    with_codes, without = (next_logits(made, ids, out) for ids in (rendered.prompt_ids, rendered.plain_ids))
    allowed = np.isfinite(with_codes)
    mixed = np.where(allowed, SCALE * np.where(allowed, with_codes, 0) + (1 - SCALE) * np.where(allowed, without, 0), -np.inf)
    return mixed - np.logaddexp.reduce(mixed)


def total(made, rendered, h) -> float:
    steps = h.ids + [made.tokenizer.eos_id] * h.ended
    return sum(guided(made, rendered, steps[:i])[t] for i, t in enumerate(steps))


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_each_token_is_the_likeliest_of_both_prompts_together(family, writer, prompts, letters):
    made = writer(family, allowed=letters, guidance=SCALE)
    rendered = with_plain(prompts(3), prompts(3, seed=1))
    for r, (h,) in zip(rendered, made.write(rendered), strict=True):
        for i, token in enumerate(h.ids):
            now = guided(made, r, h.ids[:i])
            assert now[token] == pytest.approx(now.max(), abs=1e-3)
        assert h.score == pytest.approx(total(made, r, h), abs=5e-3)
    assert [h[0].ids for h in writer(family, allowed=letters).write(rendered)] != [h[0].ids for h in made.write(rendered)]


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("method", [{"method": "beam", "beams": 3, "length_penalty": 0.0, "decode_batch": 12}, {"method": "sample", "n_best": 3}])
def test_scores_are_those_of_the_sequences(family, method, writer, prompts, letters):
    made = writer(family, allowed=letters, guidance=SCALE, **method)
    rendered = with_plain(prompts(3), prompts(3, seed=1))
    for r, found in zip(rendered, made.write(rendered), strict=True):
        assert len(found) == 3
        for h in found:
            assert h.score == pytest.approx(total(made, r, h), abs=5e-3)


def test_an_input_without_codes_is_written_as_without_guidance(writer, prompts, letters):
    rendered = with_plain(prompts(6), prompts(6))
    greedy = writer(allowed=letters).write(rendered)
    for (h,), (again,) in zip(greedy, writer(allowed=letters, guidance=SCALE).write(rendered), strict=True):
        assert h.ids == again.ids and h.score == pytest.approx(again.score, abs=1e-3)


def test_a_scale_of_nothing_reads_no_codes(writer, prompts, letters):
    rendered = with_plain(prompts(4), prompts(4, seed=1))
    plain = writer(allowed=letters).write(prompts(4, seed=1))
    assert [h[0].ids for h in writer(allowed=letters, guidance=0.0).write(rendered)] == [h[0].ids for h in plain]


def test_the_batch_holds_no_more_rows_than_asked_for(writer):
    assert writer(guidance=SCALE).rows == 2 and writer().rows == 4 and writer(guidance=SCALE, decode_batch=1).rows == 1
