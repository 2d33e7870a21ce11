"""The scores on the model card, with one table per language."""

from rgjax.hf import card


def score(value):
    return {"value": value, "low": value - 1, "high": value + 1}


ENGLISH = {
    "system": {"bleu_4": score(12.5), "usr": score(3.0), "unknown": score(1.0)},
    "floors": {"random": {"bleu_4": score(2.25)}},
    "language": "en",
    "examples": 12,
}
CHINESE = {"system": {"bleu_4_char": score(44.5)}, "floors": {"random": {"bleu_4_char": score(5.5)}}, "language": "zh", "examples": 6}
RUN = {"split": "val", "method": "greedy", "checkpoint": 7, "references": {"perplexity": 3.0}}


def test_one_language_has_one_table():
    text = card._scores(ENGLISH | RUN, 7)
    assert "Split `val`, 12 examples, decoding" in text and text.count("| metric |") == 1
    assert "| bleu_4 | 12.5 [11.5, 13.5] | 2.25 |" in text and "| usr | 3 [2, 4] |  |" in text and "unknown" not in text


def test_two_languages_have_a_table_each():
    text = card._scores(ENGLISH | RUN | {"others": [CHINESE]}, 7)
    english, chinese = text.split("6 examples (zh)")
    assert "12 examples (en)" in english and "| bleu_4 | 12.5" in english
    assert "| bleu_4_char | 44.5 [43.5, 45.5] | 5.5 |" in chinese and "| bleu_4 |" not in chinese
