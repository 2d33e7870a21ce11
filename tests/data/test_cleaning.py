"""Cleaning: known repairs, and properties over arbitrary text."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.data import cleaning

PIECES = st.sampled_from(
    ["&amp;", "&amp;lt;", "<b>", "</p>", "<br/>", "<", ">", "&", "＜b＞", "Ａ", "，", "！", " ", "\u3000", "\n", "\x00", "\u200b", "é", "e\u0301",
     "\ufeff", "ﬁ", "&nbsp;", "&#65;", "<!--", "-->", "<script>", "</script>", "中", "…", "\ud800", "\ufffd", "\u00a8", "½", "a", ";", "#38", "ｶﾞ"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=14).map("".join))


@pytest.mark.parametrize(
    "raw, clean",
    [
        ("  two\n\tlines \r\n here ", "two lines here"),
        ("<p>Fine <b>cup</b></p>", "Fine cup"),
        ("a &lt; b &amp;&amp; c", "a < b && c"),
        ("AT&T, R&D and <UNK> or <3", "AT&T, R&D and <UNK> or <3"),
        ("&lt;br&gt;gone", "gone"),
        ("<script>var x = '<b>';</script>kept", "kept"),
        ("ＡＢＣ１２３％", "ABC123%"),
        ("百搭，耐看！真的？（好）：是；…～", "百搭，耐看！真的？（好）：是；…～"),
        ("全角\u3000空格", "全角 空格"),
        ("zero\u200bwidth\ufeff\u00ad", "zerowidth"),
        ("cafe\u0301", "café"),
        ("half \ud800 pair", "half \ufffd pair"),
    ],
)
def test_known_repairs(raw, clean):
    assert cleaning.clean_text(raw) == clean


@settings(max_examples=600, deadline=None)
@given(TEXTS)
def test_cleaning_is_idempotent_and_writable(text):
    once = cleaning.clean_text(text)
    assert cleaning.clean_text(once) == once
    assert once == " ".join(once.split())
    once.encode("utf-8")
    assert not any(unicodedata.category(c) == "Cc" for c in once)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="ascii", exclude_characters="<&"), max_size=60))
def test_plain_ascii_only_loses_spaces_and_controls(text):
    spaced = "".join(c if c.isprintable() or c.isspace() else "" for c in text)
    assert cleaning.clean_text(text) == " ".join(spaced.split())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_outside_kept_punctuation_the_result_is_nfkc(text):
    bare = "".join(c for c in cleaning.clean_text(text) if c not in "，！？：；（）～…")
    assert all(unicodedata.is_normalized("NFKC", c) for c in bare)


@pytest.mark.parametrize("bad", ["cafÃ©", "itâ€™s", "lost \ufffd"])
def test_trouble_is_seen(bad):
    assert cleaning.has_trouble(bad)


@pytest.mark.parametrize("good", ["café", "it’s", "Ã", "百搭，耐看", "plain"])
def test_good_text_is_no_trouble(good):
    assert not cleaning.has_trouble(good)


def test_example_keeps_five_fields_and_nothing_empty():
    raw = {
        "id": 7,
        "user": {"id": 3, "profile": " ", "attributes": {"age": 34, "city": "", "tags": ["", " a "]}},
        "history": [{"item": 5, "title": "<b>Pan</b>", "attributes": None, "rating": 0}],
        "item": {"title": "Ｋettle", "vectors": {"image": [0.5]}},
        "control": {"max_words": 30, "style": None},
        "reason": "good\nkettle",
    }
    assert cleaning.clean_example(raw) == {
        "user": {"id": "3", "attributes": {"age": 34, "tags": ["a"]}},
        "history": [{"item": "5", "title": "Pan", "rating": 0}],
        "item": {"title": "Kettle", "vectors": {"image": [0.5]}},
        "reason": "good kettle",
        "control": {"max_words": "30"},
    }
