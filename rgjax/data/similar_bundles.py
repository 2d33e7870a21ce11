"""What people wrote about bundles like one: the intents of the train bundles that are described most alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rgjax.data.bundles import Bundles
from rgjax.data.interactions import Catalogue
from rgjax.data.tfidf import vectors


def text_of(items: Catalogue, item: int) -> str:
    """Title and all attributes of one item, as one text."""
    values = items.attributes[item].values()
    return " ".join([items.titles[item], *(" ".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in values)])


class SimilarBundles:
    """The train bundles of a shop with an intent, to look others up among."""

    def __init__(self, items: Catalogue, bundles: Bundles):
        self._items, self._bundles = items, bundles
        self._known = [n for n in bundles.of("train") if bundles.intents[n]]
        self._texts = [self._text(bundles.members(n)) for n in self._known]

    def _text(self, members: Sequence[int]) -> str:
        return " ".join(text_of(self._items, i) for i in members)

    def intents(self, asked: Sequence[Sequence[int]], count: int, without: Sequence[int] | None = None) -> list[list[str]]:
        """For sets of item numbers the intents of the `count` most similar train bundles, most similar first; `without` [N] names bundles that
        are not looked at, each for its own set.

        Similarity is the cosine between TF-IDF vectors of the titles and attributes of all items of a bundle; the first wins a tie.
        """
        table = vectors([*self._texts, *(self._text(members) for members in asked)])
        scores = (table[len(self._known) :] @ table[: len(self._known)].T).toarray()
        if without is not None:
            scores[np.asarray(without)[:, None] == np.asarray(self._known)[None]] = -1.0
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return [[self._bundles.intents[self._known[n]] for n in row if scores[i, n] >= 0] for i, row in enumerate(best)]
