"""A judge of texts that knows nothing of the model that wrote them: multinomial logistic regression on the words that a text holds, each
weighed by how unevenly the classes hold it (the log-count ratios of Wang & Manning 2012, "Baselines and Bigrams").

Words are lower-cased Latin words, single Chinese characters and pairs of them, so that English and Chinese are judged alike. Classes weigh
the same however many texts they have, or a rare one would hardly ever be found.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import optimize, sparse, special

from rgjax.data.scripts import GLYPHS

LEAST = 2  # texts that a word must be in
PENALTY = 1e-5  # of the squared weights, beside a mean loss over texts
_WORD = re.compile(rf"[^\W\d_{GLYPHS}]+|\d+|[{GLYPHS}]")
_PAIR = re.compile(rf"(?=([{GLYPHS}]{{2}}))")


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """`telling` float [V] and `weights` float [V + 1, C] (the last row is the bias) over the words `index` and the classes `labels`.

    What tells a word is the largest |log p / q| over the classes, p being the share of the class's texts that hold it and q that of all
    others (one text more in each, so that neither is 0).
    """

    labels: list[str]
    index: dict[str, int]
    telling: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> Judge:
        """Learns the classes in `labels`, one per text."""
        held = [words(text) for text in texts]
        within = Counter(word for one in held for word in one)
        index = {word: i for i, word in enumerate(sorted(w for w, n in within.items() if n >= LEAST))}  # a set's own order changes
        names = sorted(set(labels))
        wanted = np.array([names.index(label) for label in labels])
        telling = _telling(_rows(held, index, np.ones(len(index)))[:, :-1] > 0, wanted, len(names))
        rows = _rows(held, index, telling)
        share = 1.0 / (len(names) * np.bincount(wanted)[wanted])  # of each text in the loss
        one_hot, shape = np.eye(len(names))[wanted], (rows.shape[1], len(names))

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(shape)
            scores = rows @ weights
            logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            slope = rows.T @ (share[:, None] * (np.exp(logs) - one_hot))
            penalty = PENALTY * weights
            return float(-np.sum(share[:, None] * one_hot * logs) + 0.5 * np.sum(penalty * weights)), (slope + penalty).reshape(-1)

        found = optimize.minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
        return cls(names, index, telling, found.x.reshape(shape))

    def judge(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return [self.labels[i] for i in np.argmax(self._scores(texts), axis=1)] if len(texts) else []

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How sure it is of each class, float64 [N, C] in the order of `labels`."""
        return special.softmax(self._scores(texts), axis=1)

    def _scores(self, texts: Sequence[str]) -> np.ndarray:
        return _rows([words(text) for text in texts], self.index, self.telling) @ self.weights


def confusion(asked: Sequence[str], judged: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """Counts [asked][judged] over `labels`, in their order."""
    counts = Counter(zip(asked, judged, strict=True))
    return [[counts[a, j] for j in labels] for a in labels]


def words(text: str) -> set[str]:
    """What a text holds: lower-cased Latin words, numbers, Chinese characters and pairs of neighbouring ones."""
    lowered = text.lower()
    return {*_WORD.findall(lowered), *_PAIR.findall(lowered)}


def _telling(holds_NV, classes_N: np.ndarray, classes: int) -> np.ndarray:
    """Of each word, float [V]."""
    total, most = np.asarray(holds_NV.sum(0)), np.zeros(holds_NV.shape[1])
    for c in range(classes):
        own, texts = np.asarray(holds_NV[classes_N == c].sum(0)), np.sum(classes_N == c)
        ratio = np.log((own + 1) / (texts + 1)) - np.log((total - own + 1) / (len(classes_N) - texts + 1))
        most = np.maximum(most, np.abs(ratio))
    return most


def _rows(held: list[set[str]], index: dict[str, int], weight: np.ndarray) -> sparse.csr_array:
    """[N, V + 1]: rows of length 1 over the words that a text holds, and a constant."""
    data, columns, ends = [], [], [0]
    for one in held:
        known = sorted(index[word] for word in one if word in index)
        values = weight[known]
        data.append(np.append(values / (np.linalg.norm(values) or 1.0), 1.0))
        columns += [*known, len(index)]
        ends.append(len(columns))
    return sparse.csr_array((np.concatenate(data) if data else np.zeros(0), columns, ends), shape=(len(held), len(index) + 1))
