"""Beam search against the enumeration of every sequence, and its independence of the batch."""

import itertools

import numpy as np
import pytest
from recompute import log_probabilities


def every_sequence(made, prompt, words, most, penalty):
    """{ids: (score, ended)} of all sequences of at most `most` tokens, end token included."""
    eos, found = made.tokenizer.eos_id, {}
    for length in range(most):
        for out in itertools.product(words, repeat=length):
            total = sum(log_probabilities(made, prompt, list(out[:i]))[t] for i, t in enumerate(out))
            last = log_probabilities(made, prompt, list(out))
            found[out] = ((total + last[eos]) / (length + 1) ** penalty, True)
            if length == most - 1:
                found |= {(*out, t): ((total + last[t]) / most**penalty, False) for t in words}
    return found


@pytest.mark.parametrize("family, penalty", [("llama", 1.0), ("llama", 0.0), ("t5", 2.0)])
def test_enough_beams_find_the_best_of_all_sequences(family, penalty, writer, prompts, letters):
    words, k = letters[:3], 27  # no step has more than 27 unfinished sequences
    made = writer(family, allowed=words, method="beam", beams=k, max_new_tokens=3, length_penalty=penalty, decode_batch=2 * k)
    for rendered, found in zip(prompts(2), made.write(prompts(2)), strict=True):
        truth = every_sequence(made, rendered.prompt_ids, words, 3, penalty)
        best = sorted(truth.items(), key=lambda kv: -kv[1][0])[:k]
        np.testing.assert_allclose([h.score for h in found], [score for _, (score, _) in best], atol=2e-3)
        for hypothesis in found:
            score, ended = truth[tuple(hypothesis.ids)]
            assert (hypothesis.score, hypothesis.ended) == (pytest.approx(score, abs=2e-3), ended)
        assert len({tuple(h.ids) for h in found}) == k


def test_a_search_among_several_ends_finds_the_best_of_all_sequences(writer, prompts, letters, tokenizer):
    words, ends, k = letters[:2], (letters[5], letters[7], tokenizer.eos_id), 8  # every live beam may end in three ways
    made = writer(allowed=words, ends=ends, method="beam", beams=k, max_new_tokens=3, length_penalty=1.0, decode_batch=2 * k)
    for rendered, found in zip(prompts(2), made.write(prompts(2)), strict=True):
        scores = []
        for length in range(4):
            for out in itertools.product(words, repeat=length):
                total = sum(log_probabilities(made, rendered.prompt_ids, list(out[:i]))[t] for i, t in enumerate(out))
                if length < 3:
                    last = log_probabilities(made, rendered.prompt_ids, list(out))
                    scores += [((total + last[end]) / (length + 1), out, True) for end in ends]
                else:
                    scores.append((total / 3, out, False))
        truth = {(score.round(3), out, ended) for score, out, ended in sorted(scores, reverse=True)}
        for h in found:
            assert any(out == tuple(h.ids) and ended == h.ended and abs(score - h.score) < 5e-3 for score, out, ended in truth)
        assert found[0].score == pytest.approx(max(score for score, _, _ in scores), abs=2e-3)
        assert not any(t in ends for h in found for t in h.ids)


@pytest.mark.parametrize("penalty", [1.0, 3.0])
def test_a_search_does_not_depend_on_the_batch(penalty, writer, prompts, letters):
    options = {"method": "beam", "beams": 3, "length_penalty": penalty, "max_new_tokens": 16}
    few = letters[:2]  # so that inputs end their searches at different steps
    together, alone = writer(allowed=few, decode_batch=18, **options), writer(allowed=few, decode_batch=3, **options)
    for found, again in zip(together.write(prompts(12)), alone.write(prompts(12)), strict=True):
        assert [h.ids for h in found] == [h.ids for h in again]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in again], atol=1e-4)
        assert all(a.score >= b.score for a, b in itertools.pairwise(found))


def test_scores_are_those_of_the_sequences(writer, prompts, letters):
    made = writer(allowed=letters, method="beam", beams=4, length_penalty=0.7)
    for rendered, found in zip(prompts(3), made.write(prompts(3)), strict=True):
        for h in found:
            steps = h.ids + [made.tokenizer.eos_id] * h.ended
            total = sum(log_probabilities(made, rendered.prompt_ids, steps[:i])[t] for i, t in enumerate(steps))
            assert h.score == pytest.approx(total / len(steps) ** 0.7, abs=1e-3)


def test_one_beam_without_length_penalty_is_greedy(writer, prompts, letters):
    beam, greedy = writer(allowed=letters, method="beam", beams=1, length_penalty=0.0), writer(allowed=letters)
    assert [h[0].ids for h in beam.write(prompts(5))] == [h[0].ids for h in greedy.write(prompts(5))]
