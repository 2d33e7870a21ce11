"""What may be written: the rules hold on whatever random models want to write."""

import dataclasses
import re

import numpy as np
import pytest

from rgjax.config import DecodeConfig
from rgjax.data.template import Rendered
from rgjax.decode.postprocess import finish
from rgjax.decode.rules import Rules, length_of
from rgjax.errors import UserError

METHODS = [{"method": "greedy"}, {"method": "sample", "n_best": 3}, {"method": "beam", "beams": 3}]


def written(made, prompts):
    return [h for found in made.write(prompts) for h in found]


@pytest.mark.parametrize("method, n", [(METHODS[0], 1), (METHODS[1], 1), (METHODS[1], 2), (METHODS[2], 2), (METHODS[1], 3)])
def test_no_ngram_repeats(method, n, writer, prompts, letters):
    free = writer(allowed=letters[:4], max_new_tokens=16, **method)
    made = writer(allowed=letters[:4], max_new_tokens=16, no_repeat_ngram=n, **method)
    grams = lambda ids: [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    assert any(len(set(grams(h.ids))) < len(grams(h.ids)) for h in written(free, prompts(6)))
    for h in written(made, prompts(6)):
        assert len(set(grams(h.ids))) == len(grams(h.ids)), h.ids


@pytest.mark.parametrize(
    "method, unit", [(METHODS[0], "tokens"), (METHODS[1], "characters"), (METHODS[1], "words"), (METHODS[2], "words")]
)
def test_lengths_keep_their_limits(method, unit, writer, prompts, letters, tokenizer):
    low, high = {"tokens": (5, 7), "characters": (9, 14), "words": (3, 5)}[unit]
    made = writer(allowed=letters, max_new_tokens=24, min_length=low, max_length=high, length_unit=unit, **method)
    ended = 0
    for h in written(made, prompts(6)):
        size = len(h.ids) if unit == "tokens" else length_of(tokenizer.decode(h.ids), unit)
        assert size <= high, tokenizer.decode(h.ids)
        assert size >= low or not h.ended, tokenizer.decode(h.ids)
        ended += h.ended
    assert ended


def test_filled_slots_count_as_what_they_say(writer, prompts, letters, tokenizer):
    slots = {"<item>": "Aldgate Brass Lamp", "<h0>": "Copper Kettle", "<h3>": ""}
    ids = [tokenizer.id_of(s) for s in ("<item>", "<h0>", "<h3>", "<h1>")]
    inputs = [Rendered(p.prompt_ids, [], slots, False) for p in prompts(8)]
    for unit, low, high in (("characters", 20, 40), ("words", 4, 7)):
        made = writer(
            allowed=letters[:2] + ids,
            method="sample",
            n_best=3,
            max_new_tokens=16,
            min_length=low,
            max_length=high,
            length_unit=unit,
        )
        used = set()
        for h in written(made, inputs):
            text = tokenizer.decode(h.ids)
            for slot, surface in slots.items():
                text = text.replace(slot, surface)
            assert "<" not in text  # only slots with a referent
            assert length_of(text, unit) <= high, text
            assert length_of(text, unit) >= low or not h.ended, text
            used |= set(h.ids) & set(ids)
        assert used == set(ids[:2])


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda m: m["method"])
def test_banned_words_are_not_written(method, writer, prompts, letters, tokenizer):
    free = writer(allowed=letters, max_new_tokens=16, method="sample", n_best=3)
    words = [w for h in written(free, prompts(6)) for w in tokenizer.decode(h.ids).split() if w.isalpha()]
    words = list(dict.fromkeys(words))[:3]
    made = writer(allowed=letters, max_new_tokens=16, banned_words=",".join(words), **method)
    for h in written(made, prompts(6)):
        shown = finish(h, {}, tokenizer, made.config).lower()
        assert words and not any(re.search(rf"\b{word.lower()}\b", shown) for word in words)


def test_chinese_words_are_banned_while_decoding(writer, prompts, tokenizer):
    pieces = tokenizer.encode("灯")
    options = {"allowed": sorted(set(pieces)), "max_new_tokens": 12, "method": "sample", "n_best": 3, "temperature": 5.0}
    assert any("灯" in tokenizer.decode(h.ids) for h in written(writer(**options), prompts(40)))
    assert not any("灯" in tokenizer.decode(h.ids) for h in written(writer(banned_words="灯", **options), prompts(40)))


def test_a_latin_word_is_avoided_while_decoding(writer, prompts, tokenizer):
    """So that no sentence has to go for it; its letters may stand within another word."""
    table = tokenizer.token_bytes()
    ids = [i for i, text in enumerate(table) if re.fullmatch(rb" [a-z]{4,}", text)][:2]
    word, other = (table[i].decode().strip() for i in ids)
    pieces = sorted({*ids, *tokenizer.encode(" lamp")})
    options = {"allowed": pieces, "max_new_tokens": 8, "method": "sample", "n_best": 3, "temperature": 5.0}
    texts = lambda **given: [tokenizer.decode(h.ids) for h in written(writer(**options, **given), prompts(30))]
    says = lambda what, found: sum(bool(re.search(rf"\b{what}\b", text)) for text in found)
    free, avoided = texts(), texts(banned_words=word.capitalize())
    assert says(word, free) > 30 and says(word, avoided) == 0 and says(other, avoided) > 10
    assert says(word, texts(banned_words=word[1:])) > 30


def test_a_banned_word_bans_no_word_that_begins_with_it(tokenizer):
    table = tokenizer.token_bytes()
    banned = ",".join(t.decode().strip() for t in table if t.strip() and t.isascii() and t.strip().isalpha())
    rules, free = Rules.of(DecodeConfig(banned_words=banned), tokenizer), Rules.of(DecodeConfig(), tokenizer)
    assert banned and (rules.banned_V == free.banned_V).all() and not len(rules.sequences) and len(rules.avoided)


def test_markup_is_never_written(writer, prompts, tokenizer):
    forbidden = {i for i in range(tokenizer.vocab_size) if (tokenizer.backend.id_to_token(i) or "").startswith("<|")}
    forbidden |= {tokenizer.pad_id, tokenizer.bos_id} | {
        i for i in range(tokenizer.vocab_size) if (tokenizer.backend.id_to_token(i) or "").startswith("<h")
    }
    assert len(forbidden) > 12
    for h in written(writer(method="sample", n_best=4, decode_batch=8, max_new_tokens=24, temperature=5.0), prompts(6)):
        assert not forbidden & set(h.ids)


def test_lengths_that_exclude_each_other_are_refused(tokenizer):
    with pytest.raises(UserError, match="--min_length=9 is above --max_length=5"):
        Rules.of(DecodeConfig(min_length=9, max_length=5), tokenizer)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_best": 2}, "--n_best=2 needs --method=sample, beam or mbr"),
        ({"method": "beam", "beams": 3, "n_best": 4}, "--n_best=4 is above --beams=3"),
        ({"method": "mbr", "candidates": 2, "n_best": 3}, "--n_best=3 is above --candidates=2"),
    ],
)
def test_more_reasons_than_are_decoded_are_refused(options, message, tokenizer):
    with pytest.raises(UserError, match=message):
        Rules.of(DecodeConfig(**options), tokenizer)
    Rules.of(DecodeConfig(**options | {"n_best": 1}), tokenizer)


def test_an_ngram_longer_than_the_text_bans_nothing(writer, prompts, letters):
    free, made = (writer(allowed=letters[:4], max_new_tokens=3, no_repeat_ngram=n) for n in (0, 4))
    assert [h.ids for h in written(made, prompts(2))] == [h.ids for h in written(free, prompts(2))]


def test_beams_without_a_sequence_are_no_hypotheses(writer, prompts, letters):
    made = writer(allowed=letters[:1], method="beam", beams=6, max_new_tokens=2)
    possible = [[], letters[:1], letters[:1] * 2]
    for found in made.write(prompts(3)):
        ids = [h.ids for h in found]
        assert found[0].score > -100 and all(i in possible for i in ids), found
        assert len({(tuple(h.ids), h.ended) for h in found}) == len(found)


def test_units_count_words_and_characters(tokenizer):
    text = "A warm lamp 灯很亮, naïve."
    ids = np.array(tokenizer.encode(text))
    units = lambda unit: int(Rules.of(DecodeConfig(length_unit=unit), tokenizer).units_V[ids].sum())
    assert units("characters") == len(text) and units("words") == text.count(" ") and units("tokens") == len(ids)


def test_a_word_begins_behind_any_white_space(tokenizer):
    rules = Rules.of(DecodeConfig(length_unit="words"), tokenizer)
    for text in ("It glows.\nIt is\tlight", "\nIt glows", "It  glows"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert int(rules.units_V[ids].sum() + rules.opening_V[ids[0]]) >= len(text.split())
    newline = tokenizer.encode("\n")
    assert rules.units_V[newline].sum() == 1 and rules.opening_V[newline[0]] == 0


@pytest.mark.parametrize("method", ["sample", "beam"])
def test_a_history_slot_is_written_once(method, writer, prompts, tokenizer):
    slots = [tokenizer.id_of(t) for t in ("<h0>", "<h1>", "<item>")]
    made = writer(allowed=slots, method=method, n_best=2, beams=2, cite_once=True, max_new_tokens=12)
    filled = [dataclasses.replace(p, surfaces={"<h0>": "Fargo", "<h1>": "Heat", "<item>": "Ronin"}) for p in prompts(4)]
    texts = [h.ids for hypotheses in made.write(filled) for h in hypotheses]
    assert all(ids.count(slot) <= 1 for ids in texts for slot in slots[:2])
    assert any(ids.count(slots[2]) > 1 for ids in texts)  # the item itself may be named again


def test_of_equal_titles_only_the_first_slot_is_open(tokenizer):
    rules = Rules.of(DecodeConfig(), tokenizer)
    row = rules.rows([{"<item>": "Heat", "<h0>": "Fargo", "<h1>": "Heat", "<h2>": "Fargo"}, {"<h1>": "Heat", "<h2>": "Big"}], "words")
    allowed = [{rules.slot_names[i] for i in np.flatnonzero(r)} for r in np.asarray(row.slot_allowed)]
    assert allowed == [{"<item>", "<h0>"}, {"<h1>", "<h2>"}]


def test_special_tokens_are_never_written_but_those_that_end_or_belong(tokenizer):
    end, belongs, other = (tokenizer.id_of(t) for t in ("<|user|>", "<|about|>", "<|item|>"))
    rules = Rules.of(DecodeConfig(), tokenizer, ends=(end, tokenizer.eos_id), written=(belongs,))
    banned = rules.banned_V
    assert banned[other] and banned[tokenizer.pad_id] and not banned[[end, belongs, tokenizer.eos_id]].any()
    assert rules.ended(np.array([end, belongs, tokenizer.eos_id])).tolist() == [True, False, True]
    assert not banned[[tokenizer.id_of(t) for t in ("<item>", "<h0>", "<a0>")]].any()  # slots have rules of their own
    assert rules.units_V[end] == rules.units_V[tokenizer.eos_id] == 0
