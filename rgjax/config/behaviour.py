"""Options of ranking: which events, what of them is held out, and how a model of behaviour reads and learns them."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class ShopConfig:
    """A shop's interactions, and what of them is held out."""

    source: str = option("", "Instead of --dataset: folder with the raw data of a shop.")
    layout: str = option("", "How --source is laid out, as in launch.prepare.")
    hold_out: str = option(
        "last", "What is held out: each user's last event for test and the one before for validation, or the last --hold_weeks weeks.",
        choices=("last", "weeks"),
    )  # fmt: skip
    hold_weeks: int = option(8, "Weeks of the test period; as many before it are for validation (--hold_out=weeks).", low=1)
    train_on_validation: bool = option(False, "Train on the validation events too, for a last run with settled options.")
    cold_users: float = option(0.0, "Share of the users kept out of training, to be measured apart.", low=0.0, high=0.5)
    cold_items: float = option(0.0, "Share of the items kept out of training, to be measured apart.", low=0.0, high=0.5)


@dataclasses.dataclass(frozen=True)
class RankingConfig:
    """How rankings are measured."""

    models: str = option(
        "popularity,markov,knn,ease",
        "Comma-separated recommenders that are fitted on the spot: popularity, markov, knn, ease, als, bpr, lightgcn; empty fits none.",
    )
    at: str = option("10", "Comma-separated lengths of the list that the metrics are taken at.")
    sampled: int = option(
        0, "Also rank among so many drawn items only, for comparison with papers that do (it inflates the metrics); 0 leaves it out.", low=0
    )


@dataclasses.dataclass(frozen=True)
class BehaviourConfig:
    """A model of behaviour (--task=behaviour)."""

    objective: str = option(
        "softmax",
        "Loss of the next item: over the whole catalogue ('softmax'), over sampled items with the log-Q correction ('sampled'), or each "
        "sampled item for itself ('bce', 'gbce').",
        choices=("softmax", "sampled", "bce", "gbce"),
    )
    negatives: int = option(256, "Sampled items per position (all objectives but softmax).", low=1)
    sampler: str = option(
        "uniform",
        "Where negatives come from: all items alike, by popularity, the batch's own targets, items of similar users that this one never "
        "had ('collaborative'), or items near the current one in co-visit space that this user never had ('sequence').",
        choices=("uniform", "popularity", "batch", "collaborative", "sequence"),
    )
    hard: int = option(1, "Draw this many times as many negatives and keep those that score highest; 1 keeps all.", low=1)
    gbce_t: float = option(0.75, "Calibration t of gbce: 0 is bce, 1 corrects for the sampling wholly.", low=0.0, high=1.0)
    neighbours: int = option(50, "Similar users, or items near an item, that the samplers 'collaborative' and 'sequence' draw from.", low=1)
    event_features: str = option(
        "", "Comma-separated further inputs of an event: event (its kind), rating, gap (time since the one before), price, vector."
    )
    item_table: str = option("", "Parquet table of item vectors, columns id and vector (--event_features=vector).")
    window: int = option(200, "Most events of a user that are read at once.", low=2)


FEATURES = ("event", "rating", "gap", "price", "vector")
