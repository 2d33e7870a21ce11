"""The shown text: limits kept, sentences whole, nothing banned, nothing left of the markup."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.config import DecodeConfig
from rgjax.data import words
from rgjax.decode import postprocess
from rgjax.decode.rules import length_of
from rgjax.decode.writer import Hypothesis

TEXT = st.text(alphabet='ab. !,灯亮。？" ', max_size=60)


@given(TEXT, st.integers(1, 20), st.sampled_from(["words", "characters"]))
def test_shortening_keeps_the_limit_and_the_beginning(text, limit, unit):
    short = postprocess.shorten(text, limit, unit)
    assert length_of(short, unit) <= limit
    assert "".join(text.split()).startswith("".join(short.split()))
    if length_of(text, unit) <= limit:
        assert short == text


def test_shortening_prefers_whole_sentences_then_whole_words():
    text = "One two. Three four five! Six."
    assert postprocess.shorten(text, 5, "words") == "One two. Three four five!"
    assert postprocess.shorten(text, 4, "words") == "One two."
    assert postprocess.shorten(text, 1, "words") == "One"
    assert postprocess.shorten("wonderful lamp", 12, "characters") == "wonderful"
    assert postprocess.shorten("灯很亮。很好看。", 5, "characters") == "灯很亮。"


def test_shortening_cuts_all_else_before_a_required_word(tokenizer):
    text = "It is warm.\nIt is soft and light and nice, waterproof."
    shorten = lambda limit, unit="words": postprocess.shorten(text, limit, unit, ["waterproof", "absent"])
    assert shorten(9) == "It is soft and light and nice, waterproof."
    assert shorten(4) == "It is warm.\nwaterproof." and shorten(1) == "waterproof."
    assert postprocess.shorten("很轻。很软又好看，防水。很便宜。", 9, "characters", ["防水"]) == "很软又好看，防水。"
    assert postprocess.shorten("很轻很软又好看，防水。", 4, "characters", ["防水"]) == "很轻防水"
    assert finished(tokenizer, text, required=["waterproof"], max_length=9, length_unit="words") == "It is soft and light and nice, waterproof."


@given(TEXT, st.integers(3, 20), st.sampled_from(["words", "characters"]), st.lists(st.sampled_from(["ab", "灯", "b a"]), max_size=1))
def test_shortening_keeps_the_limit_and_what_is_required(text, limit, unit, required):
    short = postprocess.shorten(text, limit, unit, required)
    assert length_of(short, unit) <= limit
    if unit == "words":
        assert words.missing(short, required) == words.missing(text, required)


@given(TEXT)
def test_whole_sentences_are_a_prefix_that_ends_in_a_stop(text):
    whole = postprocess.whole_sentences(text)
    assert text.strip().startswith(whole)
    assert not whole or whole.rstrip("\"' ")[-1] in ".!?。！？"


@given(TEXT)
def test_tidy_is_done_after_once(text):
    once = postprocess.tidy(text)
    assert postprocess.tidy(once) == once
    assert "  " not in once and "灯 亮" not in once and once == once.strip()


def has_word(text: str, word: str) -> bool:
    """Whether `word` stands in `text` with no Latin letter at its Latin ends."""
    text, latin = f" {text.lower()} ", lambda c: c in "abcdefghijklmnopqrstuvwxyz0123456789"
    starts = [i for i in range(len(text)) if text.startswith(word, i)]
    free = lambda inner, outer: not (latin(inner) and latin(outer))
    return any(free(word[0], text[i - 1]) and free(word[-1], text[i + len(word)]) for i in starts)


@settings(deadline=None)
@given(
    st.text(alphabet="abA. 灯", max_size=24),
    st.lists(st.sampled_from(["ab", "b a", "a", "aab", "a.b", "灯", "a灯", "灯灯"]), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([{}, {"max_length": 2, "length_unit": "characters"}, {"max_length": 2, "length_unit": "words"}]),
)
def test_banned_words_never_stay(tokenizer, text, words, ended, limit):
    config = DecodeConfig(banned_words=",".join(words), **limit)
    shown = postprocess.finish(Hypothesis(tokenizer.encode(text), 0.0, ended), {}, tokenizer, config)
    assert not any(has_word(shown, word) for word in words), shown


def test_words_that_only_contain_a_banned_word_stay(tokenizer):
    text = "A party for the artist. Smart as café art. Fine ART!"
    assert finished(tokenizer, text, banned_words="art") == "A party for the artist."
    assert finished(tokenizer, text, banned_words="caf,par,ist") == text
    assert finished(tokenizer, "灯很亮。最好的灯。", banned_words="最好") == "灯很亮。"
    assert finished(tokenizer, "灯很亮。这是art展。", banned_words="art") == "灯很亮。"
    assert finished(tokenizer, "An art party", banned_words="Art") == "An party"


def finished(tokenizer, text, surfaces=None, ended=True, required=(), **options):
    hypothesis = Hypothesis(tokenizer.encode(text), 0.0, ended)
    return postprocess.finish(hypothesis, surfaces or {}, tokenizer, DecodeConfig(**options), required)


def test_a_sentence_with_a_banned_word_goes_whole(tokenizer):
    text = "A fine lamp. The cheap one. It glows."
    assert finished(tokenizer, text, banned_words="cheap") == "A fine lamp. It glows."
    assert finished(tokenizer, "A cheap lamp", banned_words="cheap") == "A lamp"


def test_a_text_that_ran_out_ends_with_its_last_whole_sentence(tokenizer):
    assert finished(tokenizer, "It glows. It is al", ended=False) == "It glows."
    assert finished(tokenizer, "It glows and is al", ended=False) == "It glows and is al"
    assert finished(tokenizer, "It glows. It is al") == "It glows. It is al"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from(["lamp", "a", "glows"]), min_size=1, max_size=4), st.sampled_from(".!?")), max_size=4),
    st.lists(st.sampled_from(["It", "is"]), max_size=3),
    st.integers(1, 30),
    st.sampled_from(["words", "characters", "tokens"]),
    st.booleans(),
)
def test_a_hard_limit_leaves_whole_sentences(tokenizer, sentences, rest, limit, unit, ended):
    whole = [" ".join(words) + stop for words, stop in sentences]
    text = " ".join([*whole, *rest])
    shown = finished(tokenizer, text, ended=ended, max_length=limit, length_unit=unit)
    size = {"words": lambda t: len(t.split()), "characters": len, "tokens": lambda t: 0}[unit]  # decoding limits the tokens
    fitting = [t for n in range(1, len(whole) + 1) if size(t := " ".join(whole[:n])) <= limit]
    assert size(shown) <= limit
    if fitting:
        assert shown == fitting[-1]
    else:
        assert text.startswith(shown)


def test_slots_are_filled_and_those_without_a_referent_vanish(tokenizer):
    surfaces = {"<item>": "Brass Lamp", "<h0>": "铜壶"}
    assert finished(tokenizer, 'Like "<h0>", <item> glows.', surfaces) == 'Like "铜壶", Brass Lamp glows.'
    assert finished(tokenizer, 'Like "<h1>", <item> glows.', surfaces) == "Like, Brass Lamp glows."


def test_a_title_ends_no_sentence_and_is_one_token_long(tokenizer):
    surfaces = {"<item>": "Dr. No! A lamp of brass and glass"}
    assert finished(tokenizer, "It glows. Like <item> it", surfaces, ended=False) == "It glows."
    least = len(tokenizer.encode("It is <item>."))
    for more, shown in ((0, "It is Dr. No! A lamp of brass and glass."), (1, "It is Dr. No! A lamp of brass and glass. It")):
        found = finished(tokenizer, "It is <item>. It", surfaces, ended=False, min_length=least + more, length_unit="tokens")
        assert found == shown


def test_half_a_character_is_not_shown(tokenizer):
    table = tokenizer.token_bytes()
    first_byte = next(i for i, t in enumerate(table) if t == "灯".encode()[:1])
    ids = [*tokenizer.encode("亮"), first_byte]
    assert postprocess.finish(Hypothesis(ids, 0.0, True), {}, tokenizer, DecodeConfig()) == "亮"


def test_the_hard_limit_counts_filled_slots(tokenizer):
    surfaces = {"<item>": "Very Long Brass Reading Lamp"}
    assert finished(tokenizer, "I like it. <item> glows.", surfaces, max_length=5, length_unit="words") == "I like it."
