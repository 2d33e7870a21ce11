"""Required words: whatever random models want to write, the words stand in the text as it is read."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import DecodeConfig
from rgjax.data import words
from rgjax.decode import required
from rgjax.decode.postprocess import finish
from rgjax.decode.required import Spelling
from rgjax.decode.rules import Rules, length_of
from rgjax.errors import UserError

WORDS = ["Oak", "灯很亮", "well made"]
METHODS = [{"method": "greedy"}, {"method": "sample", "n_best": 2}, {"method": "beam", "beams": 3}]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_required_words_stand_in_every_text(method, writer, prompts, tokenizer):
    made = writer(max_new_tokens=32, required_words=",".join(WORDS), **method)
    free = writer(max_new_tokens=32, **method)
    for found, before in zip(made.write(prompts(4)), free.write(prompts(4)), strict=True):
        for h in found:
            text = finish(h, {}, tokenizer, made.config, WORDS)
            assert not words.missing(text, WORDS), text
        assert words.missing(finish(before[0], {}, tokenizer, free.config), WORDS)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_a_word_that_begins_with_a_banned_one_may_be_required(method, writer, prompts, tokenizer):
    table = [text.decode("utf-8", "ignore") for text in tokenizer.token_bytes()]
    begins = [text.strip() for text in table if re.fullmatch(r" [a-z]{3,}", text)][:3]
    wanted = [f"{word}zx" for word in begins]
    made = writer(max_new_tokens=48, required_words=",".join(wanted), banned_words=",".join(begins), **method)
    for found in made.write(prompts(4)):
        for h in found:
            text = finish(h, {}, tokenizer, made.config, wanted)
            assert not words.missing(text, wanted) and len(words.missing(text, begins)) == 3, text


def test_each_input_has_its_own_words(writer, prompts, tokenizer):
    """Ten inputs through a pool of four places."""
    own = [("oak",), (), ("灯",), ("warm", "brass"), ("100",)] * 2
    rendered = [dataclasses.replace(p, required=w) for p, w in zip(prompts(10), own, strict=True)]
    made = writer(max_new_tokens=24)
    for (h,), mine in zip(made.write(rendered), own, strict=True):
        assert not words.missing(finish(h, {}, tokenizer, made.config, mine), mine)
    assert [h[0].ids for h in made.write(prompts(10)[1::5])] == [h[0].ids for h in made.write([rendered[1], rendered[6]])]


@pytest.mark.parametrize("unit, low, high", [("tokens", 20, 20), ("words", 5, 6), ("characters", 25, 30)])
def test_lengths_hold_beside_required_words(unit, low, high, writer, prompts, tokenizer, letters):
    made = writer(
        allowed=letters, method="sample", n_best=2, max_new_tokens=48, min_length=low, max_length=high, length_unit=unit,
        required_words=",".join(WORDS),
    )  # fmt: skip
    for found in made.write(prompts(4)):
        for h in found:
            text = tokenizer.decode(h.ids)
            size = len(h.ids) if unit == "tokens" else length_of(text, unit)
            assert size <= high and (size >= low or not h.ended), text
            assert not words.missing(text, WORDS), text


def test_a_word_put_at_the_end_of_a_sentence_ends_it(writer, prompts, tokenizer):
    made = writer(max_new_tokens=24, required_words="oak,灯很亮", method="greedy")
    texts = [tokenizer.decode(h.ids).replace("\ufffd", "") for found in made.write(prompts(4)) for h in found]
    listed = [m[1] for text in texts for m in re.finditer(r"(?:, oak|，灯很亮)(.?)", text)]
    assert listed and all(after in (*",，.!?。！？…", "") for after in listed), texts


@functools.cache
def _followed(spelling, length: int):
    """Words that would be missing after [1, length] tokens, bool [1, W]; compiled once."""

    def run(wanted, tokens_T):
        step = lambda p, token: (spelling.grown(p, wanted, token[None], jnp.full(1, -1)), None)
        return required.missing(jax.lax.scan(step, required.begin(wanted), tokens_T)[0], wanted)

    return jax.jit(run)


PARTS = ["water", "Water", "proof", "waterproof", "防水", "防", "水", "很", " ", " ", ".", ",", "é", "3", "s", "不"]


@given(st.lists(st.sampled_from(PARTS), max_size=10).map("".join))
@settings(max_examples=60, deadline=None)
def test_words_are_followed_as_they_are_read(tokenizer, text):
    spelling, wanted = _spelling(tokenizer)
    ids = tokenizer.encode(text)
    padded = np.array(ids + [tokenizer.pad_id] * (64 - len(ids)))  # padding writes nothing
    assert len(ids) <= 64
    absent = np.asarray(_followed(spelling, 64)(wanted, jnp.asarray(padded)))[0]
    read = words.missing(text, ["waterproof", "防水", "water"])
    assert [w for w, gone in zip(["waterproof", "防水", "water"], absent, strict=False) if gone] == read


@functools.cache
def _spelling(tokenizer):
    spelling, row = Spelling.of(tokenizer, Rules.of(DecodeConfig(), tokenizer)), ["waterproof", "防水", "water"]
    return spelling, spelling.wanted([row], [{}], spelling.shape([row]))


def test_a_slot_that_holds_the_word_has_written_it(tokenizer):
    rules = Rules.of(DecodeConfig(required_words="oak"), tokenizer)
    wanted = rules.rows([{"<item>": "Old Oak Bench"}], "tokens", [("oak",)], rules.spelling.shape([("oak",)])).wanted
    after = rules.spelling.grown(required.begin(wanted), wanted, jnp.array([tokenizer.id_of("<item>")]), jnp.array([-1]))
    assert not np.asarray(required.missing(after, wanted)).any()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"banned_words": "oak"}, "required word 'Oak' holds 'oak' of --banned_words"),
        ({"max_new_tokens": 3}, "above --max_new_tokens=3"),
        ({"max_length": 3, "length_unit": "characters"}, "above --max_length=3"),
        ({"required_words": "<|user|>"}, "can't be written"),
        ({"required_words": "<item>"}, "can't be written"),
    ],
)
def test_contradictions_are_refused(options, message, tokenizer):
    with pytest.raises(UserError, match=message):
        Rules.of(DecodeConfig(**{"required_words": ",".join(WORDS)} | options), tokenizer)


def test_a_word_goes_with_no_unfinished_or_banned_sentence(tokenizer, writer):
    from rgjax.decode.writer import Hypothesis

    cut = Hypothesis(tokenizer.encode("It glows. An oak lamp for"), 0.0, False)
    assert finish(cut, {}, tokenizer, DecodeConfig()) == "It glows."
    assert finish(cut, {}, tokenizer, DecodeConfig(), ["oak"]) == "It glows. An oak lamp for"
    banned = Hypothesis(tokenizer.encode("It glows. A cheap oak lamp."), 0.0, True)
    assert finish(banned, {}, tokenizer, DecodeConfig(banned_words="cheap"), ["oak"]) == "It glows. A oak lamp."
    assert finish(banned, {}, tokenizer, DecodeConfig(banned_words="cheap")) == "It glows."
