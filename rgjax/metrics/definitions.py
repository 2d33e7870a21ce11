"""One line per metric: what it counts, its unit, whether more is better, and who defined it."""

from __future__ import annotations

_TOKENS = {
    "": r"lower-cased tokens \w+|[^\w\s]",
    "_char": "characters without spaces",
    "_jieba": "jieba words without spaces",
}
_ROUGE_TOKENS = _TOKENS | {"": "lower-cased runs of a-z0-9, no stemming, as rouge-score"}
_OTHERS = {
    "chrf": "corpus chrF2, character 1..6-grams without spaces, x100, equal to sacrebleu's (Popović 2015)",
    "chatglm_bleu_4": "mean sentence BLEU-4 on characters, NLTK method3, x100 (AdvertiseGen convention of ChatGLM-6B)",
    "chatglm_rouge_1": "mean ROUGE-1 F on sets of jieba words, x100, as rouge-chinese (ChatGLM-6B)",
    "chatglm_rouge_2": "mean ROUGE-2 F on sets of jieba word pairs, x100, as rouge-chinese (ChatGLM-6B)",
    "chatglm_rouge_l": "mean ROUGE-L F on jieba words, x100, as rouge-chinese (ChatGLM-6B)",
    "distinct_1": "distinct tokens over all tokens of the corpus, 0..1 (Li et al. 2016)",
    "distinct_2": "distinct token pairs over all token pairs of the corpus, 0..1 (Li et al. 2016)",
    "usr": "unique sentence ratio: distinct texts over texts, 0..1 (Li et al. 2020, NETE)",
    "self_repetition": "mean share of a text's token 4-grams that repeat an earlier one, x100, less is better (Welleck 2020)",
    "history_mention": "reasons that name a history title verbatim, x100",
    "history_mention_normalised": "history_mention without articles, punctuation and case ('Heat, The' is 'the heat'), x100",
    "item_mention": "reasons that name the item's title verbatim, x100",
    "item_mention_normalised": "item_mention without articles, punctuation and case, x100",
    "invented_quotes": "quoted spans found in no title or attribute value of the input, over quoted spans, x100, less is better",
    "invented_quotes_normalised": "invented_quotes without articles, punctuation and case, x100, less is better",
    "attribute_copy": "mean share of the item's attribute values found verbatim (up to case) in the reason, x100",
    "length_compliance": "reasons within the limit (words; characters without spaces for Chinese), x100",
    "fmr": "feature matching ratio: reasons with the reference's first item attribute value, 0..1 (Li et al. 2020, NETE)",
    "fcr": "feature coverage ratio: attribute values named by any reason over all attribute values, 0..1 (Li et al. 2020, NETE)",
    "div": "mean number of attribute values that two reasons share, less is better (Li et al. 2020, NETE)",
}
# Metrics of a text against its own reference; on the references themselves they are perfect and say nothing.
REFERENCE_BASED = ("bleu_", "rouge_", "chrf", "chatglm_", "fmr")


def definitions() -> dict[str, str]:
    """Metric name -> one-line definition with its unit and source."""
    lines = {}
    for suffix, tokens in _TOKENS.items():
        for n in (1, 2, 3, 4):
            text = f"corpus BLEU-{n} on {tokens}, one reference, unsmoothed, x100, equal to sacrebleu's (Papineni et al. 2002)"
            lines[f"bleu_{n}{suffix}"] = text
    for suffix, tokens in _ROUGE_TOKENS.items():
        for n in "12l":
            lines[f"rouge_{n}{suffix}"] = f"mean ROUGE-{n.upper()} F on {tokens}, x100 (Lin 2004)"
    return lines | _OTHERS


def needs_reference(name: str) -> bool:
    """Whether metric `name` compares with the reference."""
    return name.startswith(REFERENCE_BASED)
