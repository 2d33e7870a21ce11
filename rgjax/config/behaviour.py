"""Options of ranking: which events, what of them is held out, and how a model of behaviour reads and learns them."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class ShopConfig:
    """A shop's interactions, and what of them is held out."""

    source: str = option("", "Instead of --dataset: folder with the raw data of a shop; beside --workdir, of its own, if that was moved.")
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

    measure: str = option(
        "ranking",
        "What is measured of a shop: where the next item is ranked, forecasts of the items' weekly demand, the next order ('basket'), "
        "floors of completing bundles and of writing their intents, or whether TransE finds triples that were held out.",
        choices=("ranking", "demand", "basket", "bundles", "triples"),
    )
    models: str = option(
        "popularity,markov,knn,ease",
        "Comma-separated recommenders that are fitted on the spot: popularity, markov, knn, ease, als, bpr, lightgcn, triples (items that share "
        "entities), transe (triples as vectors), two_tower (by text, attributes, triples and histories); empty fits none.",
    )
    item_table: str = option("", "Parquet table of item vectors, as of images, columns id and vector, that two_tower reads too.")
    at: str = option("10", "Comma-separated lengths of the list that the metrics are taken at.")
    hybrid: bool = option(False, "Also measure a mixture of all of them, whose weights are learned from the validation events.")
    explain: int = option(
        0, "Of a run: for so many users, whether the events said to drive the first recommendation do (deletion faithfulness).", low=0
    )
    explain_share: float = option(0.1, "Share of the events that is removed, or kept, to see (--explain).", low=0.01, high=0.9)
    reasons: str = option(
        "", "Of a run: folder of a run of --task=reason. Reasons are written for the best items of some users, and it is learned how much they tell."
    )
    reason_users: int = option(64, "Users of either split whose lists get reasons (--reasons).", low=1)
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
        "had ('collaborative'), or items near the current one in co-visit space that its window lacks ('sequence').",
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


@dataclasses.dataclass(frozen=True)
class RecommendConfig:
    """Users in, items with reasons out."""

    workdir: str = option("", "Folder of a run of --task=behaviour.")
    dataset: str = option("", "Folder of the run's shop, if it was moved.")
    source: str = option("", "Folder with the raw data of the run's shop, if it was trained on such and that was moved.")
    checkpoint: str = option("best", "Which checkpoint: the best on validation, or the last.", choices=("best", "last"))
    input: str = option("", 'JSON lines of users: {"user": ID}, {"history": [{"item": ID}]} or both; a history follows what the shop knows.')
    output: str = option("", "JSON lines to write, one per input line, in input order.")
    follow: bool = option(
        False, "Read the input as a log: a line's history follows that of the same user's earlier lines, and each is read once."
    )
    models: str = option(
        "", "Recommend by a mixture of the run and these comma-separated recommenders, fitted and weighted as by launch.evaluate --hybrid."
    )
    top: int = option(10, "Items recommended to a user.", low=1)
    repeat: bool = option(False, "Recommend also what the user had already.")
    unavailable: str = option("", "File of item ids, one per line, that are not recommended (out of stock).")
    only: str = option("", "Recommend only items with an attribute, 'name=value'.")
    strangers: bool = option(False, "Give users of whom nothing is known what is popular, instead of refusing the file.")
    evidence: str = option(
        "gradient",
        "How the events behind a recommendation are found: 'attention', 'gradient' (times input), 'leave_one_out' (exact for one event, and "
        "as many times slower as the history is long), or 'none'.",
        choices=("attention", "gradient", "leave_one_out", "none"),
    )
    evidence_events: int = option(3, "Events named as evidence.", low=1)
    reasons: str = option("", "Folder of a run of --task=reason that writes the reasons; empty takes the template.")
    reason_weight: float = option(
        0.0,
        "Rank by how well the written reasons stand for their items too: weight of the part 'reason' in the score, as learned by "
        "launch.evaluate --reasons.",
        low=0.0,
    )
    reason_history: int = option(8, "Events handed to the writer of reasons, those with most evidence, in order of time.", low=1)
    reason_words: int = option(75, "Most words of a written reason (characters for Chinese).", low=1)
    banned: str = option("", "Comma-separated words that no written reason may hold, beside superlatives; the template keeps titles as they are.")
    injected: str = option(
        "strip",
        "What addresses the model in the shop's titles and attributes ('ignore the above and ...', English or Chinese): leave it and all that "
        "follows it in the text out of what is read and shown, or keep it.",
        choices=("strip", "keep"),
    )
    shown: int = option(3, "Users shown on the terminal.", low=0)
    overwrite: bool = option(False, "Replace an existing output file.")


FEATURES = ("event", "rating", "gap", "price", "vector")
