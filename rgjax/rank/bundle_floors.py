"""Floors for bundles: which item completes one, and which intent one serves.

Completion: every item of the catalogue but those of the case's context is scored, and the held-out one is ranked among them. Knowledge
comes from the bundles of the train split, from the titles, and from interactions that no other bundle gives away. The intent of a test
bundle is that of the train bundle whose texts are most similar.

Two traps of bundle_intent. Its interactions repeat the bundles: on the raw user_item rows item-kNN finds 95 to 100 % of the held-out
items, so they are never taken as they are. And three of four test bundles come from a shopping session of which a train bundle was
written down too; every hit of co-occurrence is among those. Hence the second column, `fresh`: the cases without such a neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from rgjax.data.bundles import Bundles, Case, beside_train, completion_cases, without_bundles
from rgjax.data.interactions import Catalogue, Interactions
from rgjax.data.similar_bundles import SimilarBundles
from rgjax.data.tfidf import unit, vectors
from rgjax.errors import UserError
from rgjax.metrics import language, overlap

# A scorer maps (cases, items of a context) to scores: float [C, I].
Scorer = Callable[[sparse.csr_array], np.ndarray]


def popularity(bundles: Bundles) -> Scorer:
    """How many train bundles hold the item."""
    counts = np.asarray(bundles.items[bundles.of("train")].sum(0), float)
    return lambda contexts: np.tile(counts, (contexts.shape[0], 1))


def neighbours(rows: sparse.csr_array) -> Scorer:
    """Sum over the context of the cosine between items, each item being its column of `rows` [N, I] (bundles or users)."""
    columns = unit(sparse.csr_array(rows.T))
    return lambda contexts: (contexts @ columns @ columns.T).toarray()


def similar_titles(items: Catalogue) -> Scorer:
    """Sum over the context of the cosine between TF-IDF vectors of titles."""
    table = vectors(items.titles)
    return lambda contexts: (contexts @ table @ table.T).toarray()


def together(scorers: Sequence[Scorer]) -> Scorer:
    """The sum of several scores, each divided by its largest value of the case."""

    def score(contexts: sparse.csr_array) -> np.ndarray:
        parts = [scorer(contexts) for scorer in scorers]
        return sum(part / np.maximum(part.max(1, keepdims=True), 1e-9) for part in parts)

    return score


def ranks(scores: np.ndarray, contexts: sparse.csr_array, targets: np.ndarray) -> np.ndarray:
    """float [C]: the target's place from 1 among all items but those of its context; ties share the mean of their places."""
    scores = np.where(contexts.toarray() > 0, -np.inf, scores)
    own = scores[np.arange(len(targets)), targets][:, None]
    return 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def hits(places: np.ndarray, k: int = 10) -> dict[str, float]:
    """HR@k = share of places <= k; NDCG@k = mean of 1 / log2(1 + place) where the place is <= k, else 0."""
    inside = places <= k
    return {f"hr@{k}": float(inside.mean()), f"ndcg@{k}": float(np.where(inside, 1 / np.log2(1 + places), 0).mean())}


def contexts_of(cases: Sequence[Case], items: int) -> sparse.csr_array:
    """float32 [C, I]: ones at the items of each case's context."""
    row = np.repeat(np.arange(len(cases)), [len(case.context) for case in cases])
    column = np.concatenate([case.context for case in cases])
    return sparse.csr_array((np.ones(len(row), np.float32), (row, column)), shape=(len(cases), items))


def scorers(data: Interactions, bundles: Bundles) -> dict[str, Scorer]:
    """Every floor by name; all know the train bundles, and events that no other bundle gives away."""
    train = bundles.items[bundles.of("train")]
    both = sparse.vstack([train, without_bundles(data.named(), bundles).matrix])
    return {
        "popularity": popularity(bundles),
        "knn_bundles": neighbours(train),
        "knn_bundles_users": neighbours(both),
        "titles": similar_titles(data.items),
        "knn_and_titles": together([neighbours(both), similar_titles(data.items)]),
    }


def completion(data: Interactions, bundles: Bundles, split: str = "test") -> dict:
    """HR@10 and NDCG@10 of every floor on the held-out items of `split`, ranked among the whole catalogue.

    `fresh` has the same for the cases whose user has no train bundle of the same time (empty where there are none).
    """
    cases = completion_cases(bundles, split)
    if not cases:
        raise UserError(f"The shop has no bundle in --split={split}; it needs more bundles.")
    contexts, targets = contexts_of(cases, len(data.items)), np.array([case.target for case in cases])
    places = {name: ranks(scorer(contexts), contexts, targets) for name, scorer in scorers(data, bundles).items()}
    fresh = ~beside_train(bundles)[[case.bundle for case in cases]]
    return {
        "cases": len(cases),
        "fresh_cases": int(fresh.sum()),
        "items": len(data.items),
        "targets_in_train": float(np.isin(targets, bundles.items[bundles.of("train")].indices).mean()),
        "floors": {name: hits(place) for name, place in places.items()},
        "fresh": {name: hits(place[fresh]) for name, place in places.items()} if fresh.any() else {},
    }


def for_users(items: Catalogue, bundles: Bundles, own_UI: sparse.csr_array) -> dict[str, np.ndarray]:
    """float [U, N] by floor: scores of every bundle for users who had the items that are entries of `own_UI`.

    `popularity`: mean over the bundle's items of the train bundles that hold them; `shared`: share of its items that the user had; `titles`: cosine
    between the sums of TF-IDF vectors of titles.
    """
    sizes, counts = np.diff(bundles.items.indptr), np.asarray(bundles.items[bundles.of("train")].sum(0), float)
    table = vectors(items.titles)
    found = {
        "popularity": np.tile(bundles.items @ counts / sizes, (own_UI.shape[0], 1)),
        "shared_items": (own_UI @ bundles.items.T).toarray() / sizes,
        "titles": (unit(own_UI @ table) @ unit(bundles.items @ table).T).toarray(),
    }
    return found | {"shared_and_titles": found["shared_items"] + found["titles"]}


def nearest_intents(items: Catalogue, bundles: Bundles, split: str = "test") -> tuple[list[str], list[str]]:
    """(the intent of the most similar train bundle, the true one) for every bundle of `split` whose intent is known."""
    wanted = [n for n in bundles.of(split) if bundles.intents[n]]
    similar = SimilarBundles(items, bundles).intents([bundles.members(n) for n in wanted], 1)
    return [found[0] for found in similar], [bundles.intents[n] for n in wanted]


def intents(items: Catalogue, bundles: Bundles, split: str = "test") -> dict:
    """ROUGE and BLEU (x100) of `nearest_intents`, and of the train split's most frequent intent for comparison; none where no intent is written.

    Of Chinese intents they are on characters, and are named so (`rouge_1_char`).
    """
    stated = [bundles.intents[n] for n in bundles.of("train") if bundles.intents[n]]
    if not stated or not any(bundles.intents[n] for n in bundles.of(split)):
        return {"bundles": 0, "intents": {}}
    retrieved, wanted = nearest_intents(items, bundles, split)
    common = max(sorted(set(stated)), key=stated.count)
    lang, found = language.detect(wanted), {}
    names = [f"{metric}{'' if lang == 'en' else '_char'}" for metric in ("rouge_1", "rouge_l", "bleu_1", "bleu_2", "bleu_4")]
    for name, outputs in (("nearest_bundle", retrieved), ("most_frequent", [common] * len(wanted))):
        scores = overlap.metrics(outputs, wanted, lang)
        found[name] = {metric: round(scores[metric].value, 3) for metric in names}
        found[name]["exact"] = round(100 * math.fsum(o.lower() == w.lower() for o, w in zip(outputs, wanted, strict=True)) / len(wanted), 3)
    return {"bundles": len(wanted), "intents": found}


def evaluate(data: Interactions, bundles: Bundles, split: str = "test") -> dict:
    """Both tasks' floors."""
    return {"completion": completion(data, bundles, split), "intent": intents(data.items, bundles, split)}
