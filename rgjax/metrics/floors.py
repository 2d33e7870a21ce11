"""Methods that understand nothing: what any system must beat before its scores mean something.

`random_reasons` takes any training reason, `template_reasons` fills one sentence, `retrieved_reasons` takes the reason of the
most similar training example. None of them reads the reference of the example it answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from rgjax.errors import UserError
from rgjax.metrics import fields, language

_CHUNK_CELLS = 20_000_000  # similarities held at once (float32): 80 MB
_HISTORY_WEIGHT, _WORD_WEIGHT = 0.1, 0.2  # a long history must not outvote the item
_SHOWN = 3  # attribute values a template names


def random_reasons(examples: Sequence[dict], train: Sequence[dict], seed: int = 0) -> list[str]:
    """A uniformly drawn training reason (with replacement) per example; raises UserError when the train set is empty."""
    _require(train)
    drawn = np.random.default_rng(seed).integers(0, len(train), len(examples))
    return [fields.reason(train[i]) for i in drawn]


def template_reasons(examples: Sequence[dict], lang: str) -> list[str]:
    """One fixed sentence per language, filled with the item's title, shared attribute values and the latest history title."""
    write = _english if lang == "en" else _chinese
    return [write(fields.item_title(e), _highlights(e), (fields.history_titles(e) or [""])[-1]) for e in examples]


def _highlights(example: dict) -> list[str]:
    """Item attribute values that the history shares, in the item's order; the item's first ones when it shares none."""
    own = fields.values(example.get("item"))
    seen = {value for event in example.get("history") or [] for value in fields.values(event)}
    return ([value for value in own if value in seen] or own)[:_SHOWN]


def _english(title: str, highlights: list[str], latest: str) -> str:
    name = f'"{title}"' if title else "this item"
    listed = " and ".join(filter(None, [", ".join(highlights[:-1]), *highlights[-1:]]))
    opening = f'Because you chose "{latest}", you would enjoy {name}' if latest else f"You would enjoy {name}"
    return f"{opening}, known for {listed}." if listed else f"{opening}."


def _chinese(title: str, highlights: list[str], latest: str) -> str:
    name = f"“{title}”" if title else "这款商品"
    opening = f"因为您选择过“{latest}”，为您推荐{name}" if latest else f"为您推荐{name}"
    return f"{opening}，特点是{'、'.join(highlights)}。" if highlights else f"{opening}。"


def retrieved_reasons(examples: Sequence[dict], train: Sequence[dict]) -> list[str]:
    """The reason of the nearest training example; raises UserError when the train set is empty."""
    return [fields.reason(train[i]) for i in nearest(examples, train)]


def nearest(examples: Sequence[dict], train: Sequence[dict]) -> np.ndarray:
    """Index [len(examples)] of the most similar training example, the first one at a tie.

    Similarity is the weighted Jaccard overlap of what describes two examples (`_terms`): shared weight over joint weight. With
    nothing but item attributes this is the plain Jaccard overlap of their (attribute, value) pairs. Works in chunks: memory does
    not grow with the product of the two sets.
    """
    _require(train)
    vocabulary: dict[tuple, int] = {}
    known, known_weight = _matrix(train, vocabulary, grow=True)
    asked, asked_weight = _matrix(examples, vocabulary, grow=False)
    columns, rows = known.T.tocsr(), max(1, _CHUNK_CELLS // len(train))
    found = np.zeros(len(examples), int)
    for start in range(0, len(examples), rows):
        part = slice(start, start + rows)
        shared = (asked[part] @ columns).toarray()
        joint = asked_weight[part, None] + known_weight - shared
        found[part] = (shared / np.maximum(joint, 1e-9)).argmax(1)
    return found


def _terms(example: dict) -> dict[tuple, float]:
    """What describes an example, and its weight: the item's attributes and title first, its words and the history far behind.

    A value in the item and in the history are two different terms. A title that repeats an attribute value counts once.
    """
    terms: dict[tuple, float] = {}
    for event in example.get("history") or []:
        terms[("history", event.get("title") or event.get("item"))] = _HISTORY_WEIGHT
        terms.update({("history", *pair): _HISTORY_WEIGHT for pair in fields.pairs(event)})
    item, title = example.get("item"), fields.item_title(example)
    if title and title not in fields.values(item):
        cut = language.jieba_words if language.detect([title]) == "zh" else language.words
        terms.update({("word", word): _WORD_WEIGHT for word in cut(title)})
        terms[("title", title)] = 1.0
    terms.update({("item", *pair): 1.0 for pair in fields.pairs(item)})
    return terms


def _matrix(examples: Sequence[dict], vocabulary: dict[tuple, int], grow: bool) -> tuple[sp.csr_matrix, np.ndarray]:
    """Roots of the term weights, sparse [examples, terms] (a product of two is the shared weight), and the weights' sums.

    `grow` adds unseen terms to `vocabulary`; otherwise they count in the sums alone.
    """
    roots, columns, ends, sums = [], [], [0], []
    for example in examples:
        terms = _terms(example)
        for term, weight in terms.items():
            column = vocabulary.setdefault(term, len(vocabulary)) if grow else vocabulary.get(term)
            if column is not None:
                columns.append(column)
                roots.append(weight**0.5)
        ends.append(len(columns))
        sums.append(sum(terms.values()))
    shape = (len(examples), len(vocabulary))
    return sp.csr_matrix((np.array(roots, np.float32), np.array(columns, int), ends), shape), np.array(sums, np.float32)


def _require(train: Sequence[dict]) -> None:
    if not train:
        raise UserError("The floors need training examples and the train split is empty; prepare the dataset with some.")
