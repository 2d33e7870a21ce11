"""Notices when a generator in adversarial training writes less and less that is new."""

from __future__ import annotations

import math

SHARE, ROUNDS = 0.5, 20


class Collapse:
    """Watches the share of distinct pairs of neighbouring tokens: below `share` of what it was at first, for `rounds` rounds in a row, a
    generator has collapsed. `kept`, a dict of numbers, holds what it remembers, so that an interrupted run goes on with it."""

    def __init__(self, kept: dict, share: float = SHARE, rounds: int = ROUNDS):
        self.kept, self.share, self.rounds = kept, share, rounds

    def note(self, step: int, distinct: float, rounds: int = 1) -> str:
        """What to say when it has collapsed, by the mean over the last `rounds` rounds; '' as long as it has not. NaN, where nothing was
        written, is passed over."""
        if math.isnan(distinct):
            return ""
        first = self.kept.setdefault("distinct_at_first", distinct)
        low = self.kept.get("rounds_collapsed", 0) + rounds if distinct < self.share * first else 0
        self.kept["rounds_collapsed"] = low
        if low < self.rounds:
            return ""
        return f"the generator collapsed by round {step}: {distinct:.1%} of its token pairs are distinct, {first:.1%} were at first"
