"""Words of the codes that are asked for: what is added to logits, and what random models then write."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from rgjax.config import DecodeConfig
from rgjax.data.derived import WordCodes
from rgjax.decode.code_words import CodeWords
from rgjax.decode.rules import Rules
from rgjax.errors import UserError

LISTS = {"topic": {"price": ["price"], "use": ["reading", "阅读"]}, "mood": {"retro": ["retro", "复古"]}}


def pulling(tokenizer, mentions=1):
    return CodeWords.of(WordCodes(LISTS), 3.0, mentions, tokenizer, tokenizer.vocab_size + 2)


def test_only_whole_words_are_pulled(tokenizer):
    made = pulling(tokenizer)
    assert made.values == (("topic", "price"), ("topic", "use"), ("mood", "retro")) and not made.is_token_VK[tokenizer.vocab_size :].any()
    for k, words in enumerate((("price",), ("reading", "阅读"), ("retro", "复古"))):
        read = [tokenizer.decode([i]) for i in np.flatnonzero(made.is_token_VK[:, k])]
        assert read and all(text.strip().lower() in words and (text[0] == " ") == text.isascii() for text in read)


def test_logits_are_pulled_as_the_codes_say(tokenizer):
    """By hand for three rows: one that asks, one that has named the value already, one that asks for nothing."""
    made = pulling(tokenizer)
    price = tokenizer.encode(" price")[0]
    asked = made.asked([{"topic": "price"}, {"topic": "price", "mood": "retro"}, {}])
    np.testing.assert_array_equal(asked, [[1, -1, 0], [1, -1, 1], [0, 0, 0]])
    tokens = jnp.array([[5, 6, -1], [5, price, -1], [price, -1, -1]])
    found = made.apply(jnp.zeros((3, tokenizer.vocab_size + 2)), tokens, jnp.asarray(asked))
    named, other, mood = made.is_token_VK.T.astype(float)
    np.testing.assert_allclose(found, [3 * named - 3 * other, -3 * other + 3 * mood, 0 * named])
    twice = pulling(tokenizer, 2).apply(jnp.zeros((3, tokenizer.vocab_size + 2)), tokens, jnp.asarray(asked))
    assert twice[1, price] == 0  # it stands there already
    np.testing.assert_allclose(twice[1], 3 * named * (np.arange(len(named)) != price) - 3 * other + 3 * mood)


@pytest.mark.parametrize("method", [{"method": "greedy"}, {"method": "sample"}, {"method": "beam", "beams": 3}], ids=lambda m: m["method"])
def test_texts_name_the_value_that_is_asked_for(method, writer, prompts, tokenizer, tmp_path):
    (tmp_path / "words.json").write_text(json.dumps(LISTS))
    options = {"max_new_tokens": 12, "code_words": str(tmp_path / "words.json"), "code_pull": 12.0, **method}
    made, values = writer(**options), [{"topic": "price"}, {"topic": "use"}, {}] * 2
    rendered = [dataclasses.replace(p, control=control) for p, control in zip(prompts(6), values, strict=True)]
    begins = made.rules.code_words.is_token_VK
    for found, control in zip(made.write(rendered), values, strict=True):
        named = begins[found[0].ids].any(axis=0)
        assert not control or (named[:2] == [control["topic"] == "price", control["topic"] == "use"]).all(), found
    free = writer(max_new_tokens=12, **method).write([rendered[2], rendered[5]])
    assert [h[0].ids for h in made.write([rendered[2], rendered[5]])] == [h[0].ids for h in free]


def test_a_file_that_is_no_word_list_is_refused(tokenizer, tmp_path):
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(UserError, match="--code_words=.*odd.json"):
        Rules.of(DecodeConfig(code_words=str(tmp_path / "odd.json")), tokenizer)
    of = lambda lists: CodeWords.of(WordCodes(lists), 1.0, 1, tokenizer, tokenizer.vocab_size)
    with pytest.raises(UserError, match="no word of topic=light"):
        of({"topic": {"light": ["lantern"]}})
    with pytest.raises(UserError, match="'price' for topic=cost and for topic=deal"):
        of({"topic": {"cost": ["price"], "deal": ["price"]}})


def test_inputs_that_take_places_in_a_pool_are_pulled_as_in_batches(writer, prompts, tmp_path):
    (tmp_path / "words.json").write_text(json.dumps(LISTS))
    options = {"max_new_tokens": 12, "code_words": str(tmp_path / "words.json"), "code_pull": 8.0}
    rendered = [dataclasses.replace(p, control={"topic": t}) for p, t in zip(prompts(10), ["price", "use"] * 5, strict=True)]
    pooled, whole = (writer(decode_batch=n, **options).write(rendered) for n in (4, 10))
    assert [h[0].ids for h in pooled] == [h[0].ids for h in whole]
