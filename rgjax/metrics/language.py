"""Which language a corpus is in, and how its texts are cut into tokens.

Every metric names its tokens: English words, Chinese characters or Chinese words (jieba). Spaces never count as tokens: counting
them triples the BLEU of Chinese text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from rgjax.data.scripts import HAN
from rgjax.errors import UserError

CHINESE_SHARE = 0.3  # Chinese copy carries Latin brand names and sizes; English copy hardly any ideographs.

_HAN = re.compile(f"[{HAN}]")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"\w+|[^\w\s]")
_ROUGE_WORD = re.compile(r"[a-z0-9]+")


def is_cjk(character: str) -> bool:
    """Whether one character is a CJK ideograph."""
    return bool(_HAN.match(character))


def cjk_share(texts: Iterable[str]) -> float:
    """CJK ideographs as a share of all letters of `texts`, in [0, 1]; 0 when there are no letters."""
    letters = cjk = 0
    for text in texts:
        letters += len(_LETTER.findall(text))
        cjk += len(_HAN.findall(text))
    return cjk / letters if letters else 0.0


def detect(texts: Iterable[str]) -> str:
    """'zh' when at least `CHINESE_SHARE` of the corpus's letters are CJK ideographs, otherwise 'en'."""
    return "zh" if cjk_share(texts) >= CHINESE_SHARE else "en"


def majority(languages: Iterable[str]) -> str:
    """The language of most texts; 'en' where they tie."""
    found = list(languages)
    return "zh" if found.count("zh") > found.count("en") else "en"


def words(text: str) -> list[str]:
    r"""Lower-cased tokens `\w+|[^\w\s]`: words and single punctuation marks (English BLEU, distinct-n, features)."""
    return _WORD.findall(text.lower())


def rouge_words(text: str) -> list[str]:
    """Lower-cased runs of a-z and 0-9, the tokens of the `rouge-score` package without stemming."""
    return _ROUGE_WORD.findall(text.lower())


def characters(text: str) -> list[str]:
    """Every character of `text` that is not a space, in order."""
    return [c for c in text if not c.isspace()]


def jieba_words(text: str) -> list[str]:
    """Words of `jieba.cut(text)` that are not spaces; raises UserError when jieba is not installed."""
    return list(_jieba_words(text))


@functools.lru_cache(maxsize=1 << 16)  # references are cut once, not once per system
def _jieba_words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _jieba().cut(text) if not word.isspace())


@functools.lru_cache(maxsize=1)
def _jieba():
    try:
        import jieba
    except ImportError as error:
        raise UserError("Chinese word metrics need the package jieba; install it with: pip install jieba.") from error
    jieba.setLogLevel("WARNING")
    return jieba
