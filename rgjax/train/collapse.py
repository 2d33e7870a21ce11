"""Notices when a generator in adversarial training writes less and less that is new."""

from __future__ import annotations

import math


class Collapse:
    """Watches the share of distinct pairs of neighbouring tokens: below `share` of what it was at first, for `rounds` rounds in a row, a
    generator has collapsed."""

    def __init__(self, share: float = 0.5, rounds: int = 20):
        self.share, self.rounds, self.first, self.low = share, rounds, None, 0

    def note(self, step: int, distinct: float, rounds: int = 1) -> str:
        """What to say when it has collapsed, by the mean over the last `rounds` rounds; '' as long as it has not. NaN, where nothing was
        written, is passed over."""
        if math.isnan(distinct):
            return ""
        if self.first is None:
            self.first = distinct
        self.low = self.low + rounds if distinct < self.share * self.first else 0
        if self.low < self.rounds:
            return ""
        return f"the generator collapsed by round {step}: {distinct:.1%} of its token pairs are distinct, {self.first:.1%} were at first"
