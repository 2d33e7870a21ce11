"""A judge of texts that knows nothing of the model that wrote them: multinomial logistic regression on TF-IDF of word and character n-grams.

Words are lower-cased Latin words and single Chinese characters, so that English and Chinese are judged alike. Classes weigh the same however
many texts they have, or a rare one would hardly ever be found. Log-linear n-gram models are the usual baseline of text classification
(Joulin et al. 2017, arXiv:1607.01759).
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import optimize, sparse, special

ORDER = 3  # longest n-gram
LEAST = 2  # texts that an n-gram must be in
PENALTY = 1e-4  # of the squared weights, beside a mean loss over texts
_WORD = re.compile(r"[^\W\d_\u2e80-\u9fff\uf900-\ufaff]+|\d+|[\u2e80-\u9fff\uf900-\ufaff]")


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """`rarity` float [V] and `weights` float [V + 1, C] (the last row is the bias) over the n-grams `index` and the classes `labels`."""

    labels: list[str]
    index: dict[tuple[str, ...], int]
    rarity: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> Judge:
        """Learns the classes in `labels`, one per text."""
        counted = [_grams(text) for text in texts]
        within = Counter(gram for grams in counted for gram in grams)
        index = {gram: i for i, gram in enumerate(g for g, n in within.items() if n >= LEAST)}
        rarity = np.array([np.log(len(texts) / within[gram]) for gram in index])
        names = sorted(set(labels))
        rows, wanted = _rows(counted, index, rarity), np.array([names.index(label) for label in labels])
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
        return cls(names, index, rarity, found.x.reshape(shape))

    def judge(self, texts: Sequence[str]) -> list[str]:
        """The likeliest class of each text."""
        return [self.labels[i] for i in np.argmax(self._scores(texts), axis=1)] if len(texts) else []

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How sure it is of each class, float64 [N, C] in the order of `labels`."""
        return special.softmax(self._scores(texts), axis=1)

    def _scores(self, texts: Sequence[str]) -> np.ndarray:
        return _rows([_grams(text) for text in texts], self.index, self.rarity) @ self.weights


def confusion(asked: Sequence[str], judged: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """Counts [asked][judged] over `labels`, in their order."""
    counts = Counter(zip(asked, judged, strict=True))
    return [[counts[a, j] for j in labels] for a in labels]


def _grams(text: str) -> Counter:
    tokens = _WORD.findall(text.lower())
    return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(tokens) - n + 1))


def _rows(counted: list[Counter], index: dict, rarity: np.ndarray) -> sparse.csr_array:
    """[N, V + 1]: rows of length 1, and a constant."""
    data, columns, ends = [], [], [0]
    for grams in counted:
        known = [(index[gram], (1 + np.log(n))) for gram, n in grams.items() if gram in index]
        values = np.array([n for _, n in known]) * rarity[[c for c, _ in known]] if known else np.zeros(0)
        data.append(np.append(values / (np.linalg.norm(values) or 1.0), 1.0))
        columns += [c for c, _ in known] + [len(index)]
        ends.append(len(columns))
    return sparse.csr_array((np.concatenate(data) if data else np.zeros(0), columns, ends), shape=(len(counted), len(index) + 1))
