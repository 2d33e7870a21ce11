"""One line per metric of recommenders: what it counts, its unit, and who defined it. All ranks are among all unseen items unless 'sampled'."""

from __future__ import annotations

import re
from collections.abc import Iterable

_AT = {
    "hr": "users with a held-out item among the first {k}, 0..1",
    "recall": "mean share of a user's held-out items among the first {k}, 0..1",
    "precision": "mean share of the first {k} that were held out, 0..1",
    "ndcg": "mean sum of 1 / log2(1 + rank) of held-out items in the first {k} over its largest value, 0..1 (Järvelin & Kekäläinen 2002)",
    "mrr": "mean of 1 / rank of the first held-out item, 0 beyond {k}, 0..1",
    "map": "mean over users of the mean precision at each held-out item in the first {k}, over min({k}, held-out items), 0..1",
}
_LISTS = {  # of the first k items
    "coverage": "items in at least one list over all items, 0..1",
    "gini": "Gini index of how often items are in lists, items in none as zeros, 0..1, less is more even",
    "entropy": "Shannon entropy in nats of the item at a random place of a random list, 0..ln(items)",
    "novelty": "mean over lists of -log2(training events of an item / users), bits",
    "average_popularity": "mean over lists of the mean training events of their items",
    "tail_percentage": "mean share of a list in the tenth of the seen items that has the fewest training events, 0..1 (as RecBole)",
    "popularity_lift": "how much more popular lists are than histories, over the latter, 0 is the same (Abdollahpouri et al. 2019)",
    "attribute_diversity": "mean over lists of 1 - mean Jaccard overlap of the attributes of pairs of items, 0..1",
    "exposure_ratio": "mean exposure, 1 / log2(1 + rank), of an item of the tail (see tail_percentage) over that of another item with training "
    "events, 1 is parity (Singh & Joachims 2018)",
    "disparate_treatment": "exposure over held-out events of the tail's items over the same of the others', 1 is fair (Singh & Joachims 2018)",
}
_DRAWN = ", ranked among {n} drawn unseen items only: not comparable with full ranking (Krichene & Rendle 2020)"
_OF = "the score of the first recommendation falls when the share of its history that a method of evidence names is "
DEFINITIONS = {  # {k}, {n} and {name} stand for what a reported name has in their place
    **{f"{name}@{{k}}": text for name, text in (_AT | _LISTS).items()},
    **{f"{name}@{{k}}_sampled{{n}}": _AT[name] + _DRAWN for name in ("hr", "ndcg")},
    "miscalibration_{name}@{k}": "mean KL(p || 0.99 q + 0.01 p) in nats of {name} in history p and list q, less is better (Steck 2018)",
    "ndcg@{k}_gap_{name}": "largest minus smallest mean of ndcg@{k} over groups of users by {name}, 0..1, less is better",
    "ece": "mean |probability - share of hits| of the first item over 15 bins of equal width, 0..1, less is better (Naeini et al. 2015)",
    "brier": "mean squared difference of the first item's probability and whether it was held out, 0..1, less is better (Brier 1950)",
    "weight_{name}": "what {name} counts in the score: a recommender in a mixture, or a kind of content in two_tower",
    "fit_seconds": "seconds that fitting took; of a trained run, opening it",
    "users": "users whose held-out item was asked for",
    "comprehensiveness": f"how much {_OF}removed, more is better (DeYoung et al. 2020)",
    "sufficiency": f"how much {_OF}all that is kept, less is better (DeYoung et al. 2020)",
    "comprehensiveness_random": "comprehensiveness of as many events drawn at random",
    "sufficiency_random": "sufficiency of as many events drawn at random",
}


def _pattern(key: str) -> re.Pattern:
    form = key.replace("{k}", r"(?P<k>\d+)").replace("{n}", r"(?P<n>\d+)").replace("{name}", "(?P<name>.*)")
    return re.compile(form, re.DOTALL)  # a shop's attribute may have any name


_FORMS = {key: _pattern(key) for key in DEFINITIONS}


def form(name: str) -> tuple[str, dict[str, str]]:
    """The key of DEFINITIONS that a reported metric has, and what it has in the key's places: ('hr@{k}', {'k': '10'}) of 'hr@10'.

    Raises KeyError where it has none.
    """
    for key, pattern in _FORMS.items():
        if found := pattern.fullmatch(name):
            return key, found.groupdict()
    raise KeyError(name)


def definitions(names: Iterable[str]) -> dict[str, str]:
    """Metric name -> one-line definition, for the names as they are reported; raises KeyError as `form`."""
    return {name: DEFINITIONS[key].format(**given) for name, (key, given) in ((name, form(name)) for name in names)}
