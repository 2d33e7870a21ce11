"""Options of bundles: how a model of item sets learns, and what bundles are offered."""

from __future__ import annotations

import dataclasses

from rgjax.config.options import option


@dataclasses.dataclass(frozen=True)
class BundleConfig:
    """A model of bundles (--task=bundle)."""

    text_width: int = option(256, "Numbers that an item's title, attributes and facts are reduced to.", low=2)
    set_length: int = option(16, "Most items of a bundle that are read.", low=2)
    user_length: int = option(32, "Most items that are read of what a user has had.", low=1)
    user_bundles: int = option(6, "Most other bundles of a user that are read.", low=1)
    beside: int = option(64, "Most items that are read of what other bundles hold together with a bundle's.", low=1)
    item_dropout: float = option(0.5, "Share of the items that are known by their text alone in a training step.", low=0.0, high=1.0)
    user_dropout: float = option(0.3, "Share of the training bundles whose user is not told.", low=0.0, high=1.0)
    intent_share: float = option(0.15, "Share of the training bundles whose intent is told, so that one can be asked for by text.", low=0.0, high=1.0)
    contrast: float = option(0.1, "Weight of the contrast between the views of a bundle and its user; 0 leaves it out.", low=0.0)


@dataclasses.dataclass(frozen=True)
class OfferConfig:
    """What a model of bundles offers"""

    offer: str = option(
        "complete",
        "Of a run of --task=bundle: single items that complete a bundle, whole bundles built for a user, a text or given items, or those of the "
        "shop's bundles that suit a user.",
        choices=("complete", "build", "choose"),
    )
    size: int = option(3, "Items of a bundle that is built, the given ones among them.", low=2, high=64)
    budget: float = option(0.0, "Most that the items of a built bundle cost together; 0 sets no limit.", low=0.0)
    offer_beams: int = option(16, "Bundles that are built side by side (beam search).", low=1)
