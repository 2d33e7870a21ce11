"""A reason made fit to be shown: nothing twice, nothing unfinished, no banned or boastful word, cased and punctuated, and not too long."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rgjax.data.scripts import HAN
from rgjax.data.words import pattern
from rgjax.decode.postprocess import shorten, tidy, whole_sentences
from rgjax.decode.rules import length_of

# Absolute claims that advertising law forbids or a shop can't prove: Art. 9 of China's Advertising Law names the first three Chinese ones.
SUPERLATIVES = (  # words that state an absolute rank; "best" alone may be an award's name
    "国家级", "最高级", "最佳", "第一品牌", "顶级", "极品", "绝无仅有", "史无前例", "全网最低", "销量第一", "万能", "100%有效",
    "best ever", "number one", "no. 1", "world's best", "the very best", "unbeatable", "guaranteed results", "lowest price", "perfect for everyone",
)  # fmt: skip
_FIRST_NAME = 0xE000  # characters for private use stand for titles while a text is changed
_END = re.compile(r"[.!?。！？…][\"'”’》)]*$")
_SENTENCES = re.compile(r"[^.!?。！？…]+(?:[.!?。！？…]+[\"'”’》)]*|$)\s*")


def polish(text: str, banned: Sequence[str] = (), max_words: int = 0, titles: Sequence[str] = ()) -> str:
    """The text to show, '' where nothing is left; `titles` in it stay as they are ("Liar Liar", "E.T.").

    In this order: spaces mended; an unfinished last sentence dropped where whole ones stand before it; a sentence that is said again
    dropped; a phrase repeated at once kept once; sentences with a banned word or a superlative dropped; at most `max_words` words
    (characters for Chinese; 0 has no limit); a capital at the start and a full stop at the end.
    """
    names = {title: chr(_FIRST_NAME + i) for i, title in enumerate(sorted(set(filter(None, titles)), key=len, reverse=True))}
    back = {mark: title for title, mark in names.items()}
    shown = lambda text: "".join(back.get(c, c) for c in text)
    for title, mark in names.items():
        text = text.replace(title, mark)
    text = tidy(text)
    text = whole_sentences(text) or text
    while (plainer := _unrepeated("".join(_once(_sentences(text))))) != text:  # without a repetition two sentences may be the same
        text = plainer
    patterns = [pattern(word) for word in (*SUPERLATIVES, *banned)]
    kept = [s for s in _sentences(text) if not any(p.search(shown(s)) for p in patterns)]
    if any(p.search(shown("".join(kept))) for p in patterns):  # one that reaches over a full stop, as "no. 1"
        return ""
    unit = "characters" if _chinese(shown("".join(kept))) else "words"
    while max_words and len(kept) > 1 and length_of(shown("".join(kept)).strip(), unit) > max_words:
        kept.pop()
    text = shown(_punctuated(tidy("".join(kept).strip())))
    return _punctuated(shorten(text, max_words, unit)) if max_words and length_of(text, unit) > max_words else text


def _sentences(text: str) -> list[str]:
    return _SENTENCES.findall(text)


def _once(sentences: list[str]) -> list[str]:
    seen: set[str] = set()
    kept = []
    for sentence in sentences:
        plain = re.sub(r"[^\w\ue000-\uf8ff]+", " ", sentence).casefold().strip()
        if plain and plain not in seen:
            kept.append(sentence)
        seen.add(plain)
    return kept


def _unrepeated(text: str) -> str:
    """'soft and warm soft and warm' -> 'soft and warm': two or more words, or four or more Chinese characters, repeated at once."""
    text = re.sub(r"\b(\w+(?:[ ,]+\w+){1,7})(?:[ ,]+\1\b)+", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\b([A-Za-z]+)(?: \1\b)+", r"\1", text)  # 'very very': a word repeated at once says nothing more
    return re.sub(rf"([{HAN}]{{4,20}})(?:[，、]?\1)+", r"\1", text)


def _chinese(text: str) -> bool:
    return len(re.findall(f"[{HAN}]", text)) * 2 > len(text.replace(" ", ""))


def _punctuated(text: str) -> str:
    if not text:
        return ""
    text = re.sub(r"\s+([,;:])\s*(?=[^\W\d])", r"\1 ", text)  # 'Heat ,heat'
    text = re.sub(r"([.!?]\s+)([a-z])", lambda m: m[1] + m[2].upper(), text)
    text = re.sub(r"([,，;；:：、\-\s]+)$", "", text)
    if text and not _END.search(text):
        text += "。" if _chinese(text) else "."
    return text[:1].upper() + text[1:]


def template(item: str, evidence: Sequence[str], attributes: Sequence[str], chinese: bool) -> str:
    """The last resort, true by construction: names what the shopper had (`evidence`, titles) and what the item is (`attributes`)."""
    if chinese:
        because = f"因为你选过《{'》《'.join(evidence)}》，" if evidence else ""
        return f"{because}为你推荐《{item}》" + (f"（{'、'.join(attributes)}）。" if attributes else "。")
    because = f"Because you chose {_listed(evidence)}, you" if evidence else "You"
    return f'{because} may like "{item}"' + (f" ({', '.join(attributes)})." if attributes else ".")


def _listed(titles: Sequence[str]) -> str:
    quoted = [f'"{title}"' for title in titles]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
