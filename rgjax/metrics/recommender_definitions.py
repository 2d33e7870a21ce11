"""One line per metric of recommenders: what it counts, its unit, and who defined it. All ranks are among all unseen items unless 'sampled'."""

from __future__ import annotations

_AT = {
    "hr": "users with a held-out item among the first {k}, 0..1",
    "recall": "mean share of a user's held-out items among the first {k}, 0..1",
    "precision": "mean share of the first {k} that were held out, 0..1",
    "ndcg": "mean sum of 1 / log2(1 + rank) of held-out items in the first {k} over its largest value, 0..1 (Järvelin & Kekäläinen 2002)",
    "mrr": "mean of 1 / rank of the first held-out item, 0 beyond {k}, 0..1",
    "map": "mean over users of the mean precision at each held-out item in the first {k}, over min({k}, held-out items), 0..1",
}
_OTHERS = {
    "coverage": "items in at least one list over all items, 0..1",
    "gini": "Gini index of how often items are in lists, items in none as zeros, 0..1, less is more even",
    "entropy": "Shannon entropy in nats of the item at a random place of a random list, 0..ln(items)",
    "novelty": "mean over lists of -log2(training events of an item / users), bits",
    "average_popularity": "mean over lists of the mean training events of their items",
    "tail_percentage": "mean share of a list in the tenth of the seen items that has the fewest training events, 0..1 (as RecBole)",
    "popularity_lift": "by group of users, how much more popular lists are than histories, 0 is the same (Abdollahpouri et al. 2019)",
    "intra_list_diversity": "mean over lists of 1 - mean cosine of pairs of items (Ziegler et al. 2005)",
    "attribute_diversity": "mean over lists of 1 - mean Jaccard overlap of the attributes of pairs of items, 0..1",
    "miscalibration": "mean KL(p || 0.99 q + 0.01 p) in nats of categories in history p and list q, less is better (Steck 2018)",
    "exposure_ratio": "mean exposure, 1 / log2(1 + rank), of one group's items over another's, 1 is parity (Singh & Joachims 2018)",
    "disparate_treatment": "exposure over relevance of one group's items over the same of another, 1 is fair (Singh & Joachims 2018)",
    "expected_exposure_loss": "squared distance of the items' exposure and the exposure due to relevance, less is better (Diaz et al. 2020)",
    "group_gap": "largest minus smallest mean of a metric over groups of users, less is better",
    "ece": "mean |probability - share of hits| of the first item over 15 bins of equal width, 0..1, less is better (Naeini et al. 2015)",
    "brier": "mean squared difference of the first item's probability and whether it was held out, 0..1, less is better (Brier 1950)",
}
LESS_IS_BETTER = frozenset({"gini", "miscalibration", "expected_exposure_loss", "group_gap", "ece", "brier"})


def definitions(k: int = 10, negatives: int = 0) -> dict[str, str]:
    """Metric name -> one-line definition; `negatives` adds the compatibility metrics among so many drawn items."""
    lines = {f"{name}@{k}": text.format(k=k) for name, text in _AT.items()}
    if negatives:
        drawn = f", ranked among {negatives} drawn unseen items only: not comparable with full ranking (Krichene & Rendle 2020)"
        lines |= {f"{name}@{k}_sampled{negatives}": text.format(k=k) + drawn for name, text in _AT.items()}
    return lines | _OTHERS
