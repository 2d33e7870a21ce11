"""Perplexity under a language model that had no part in the writing: interpolated n-grams over reference reasons (Witten & Bell 1991).

An n-gram model can't tell a good text from a bad one, only usual wording from unusual, so it is read beside that of other texts.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

ORDER = 3
_START, _END, _UNKNOWN = "<s>", "</s>", "<unk>"


@dataclasses.dataclass(frozen=True, eq=False)
class Ngrams:
    """Counts of what follows each context of up to `ORDER` - 1 tokens; tokens seen once while learning count as unknown."""

    known: frozenset[str]
    follow: dict[tuple[str, ...], Counter]

    @classmethod
    def fit(cls, texts: Sequence[Sequence[str]]) -> Ngrams:
        """Learns from tokenized texts."""
        seen = Counter(token for text in texts for token in text)
        known, follow = frozenset(t for t, n in seen.items() if n > 1) | {_END}, defaultdict(Counter)
        for text in texts:
            tokens = _padded(text, known)
            for i in range(ORDER - 1, len(tokens)):
                for n in range(ORDER):
                    follow[tuple(tokens[i - n : i])][tokens[i]] += 1
        return cls(known, dict(follow))

    def probability(self, token: str, context: tuple[str, ...]) -> float:
        """Of a known token or the unknown one after a context: its share there, mixed with what a shorter context says."""
        counts = self.follow.get(context)
        shorter = self.probability(token, context[1:]) if context else 1 / (len(self.known) + 1)
        if counts is None:
            return shorter
        total, kinds = counts.total(), len(counts)
        return (counts[token] + kinds * shorter) / (total + kinds)

    def perplexity(self, texts: Sequence[Sequence[str]]) -> float:
        """Per token, the end of each text counted as one; NaN without texts."""
        nats = count = 0.0
        for text in texts:
            tokens = _padded(text, self.known)
            for i in range(ORDER - 1, len(tokens)):
                nats -= math.log(self.probability(tokens[i], tuple(tokens[i - ORDER + 1 : i])))
                count += 1
        return math.exp(nats / count) if count else math.nan


def _padded(text: Sequence[str], known: frozenset[str]) -> list[str]:
    return [_START] * (ORDER - 1) + [t if t in known else _UNKNOWN for t in text] + [_END]
