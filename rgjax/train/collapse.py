"""Notices when a generator that is trained by what it writes loses its variety, or the length of its texts."""

from __future__ import annotations

import math
from collections.abc import Mapping

SHARE, ROUNDS = 0.5, 20
TOLD = {  # what can be watched (`rgjax.train.variety`), and how it is told
    "distinct_2": "{now:.1%} of its token pairs are distinct, {first:.1%} were at first",
    "entropy": "the entropy of its tokens is {now:.2f} nats, {first:.2f} at first",
    "self_overlap": "{now:.1%} of a text's token pairs stand in another one too, {first:.1%} did at first",
    "written_tokens": "its texts have {now:.1f} tokens, {first:.1f} at first",
}


class Collapse:
    """Watches figures of what is written: where one is below `share` of what it was at first, for `rounds` rounds in a row, a generator has
    collapsed. Of `self_overlap` that is what is left to 1; `written_tokens` may not grow by as much either. `kept`, a dict of numbers, holds what
    it remembers, so that an interrupted run goes on with it."""

    def __init__(self, kept: dict, share: float = SHARE, rounds: int = ROUNDS):
        self.kept, self.share, self.rounds = kept, share, rounds

    def note(self, step: int, values: Mapping[str, float], rounds: int = 1) -> str:
        """What to say when it has collapsed, by the means over the last `rounds` rounds of those of `TOLD` that are given; '' as long as it has
        not. NaN, where nothing was written, is passed over."""
        said = ""
        for name, now in values.items():
            if name not in TOLD or math.isnan(now):
                continue
            first = self.kept.setdefault(f"{name}_at_first", now)
            low = self.kept.get(f"{name}_low", 0) + rounds if self._low(name, now, first) else 0
            self.kept[f"{name}_low"] = low
            if low >= self.rounds and not said:
                said = f"the generator collapsed by round {step}: " + TOLD[name].format(now=now, first=first)
        return said

    def _low(self, name: str, now: float, first: float) -> bool:
        if name == "self_overlap":
            now, first = 1 - now, 1 - first
        return now < self.share * first or (name == "written_tokens" and now * self.share > first)

    @property
    def looms(self) -> bool:
        """Whether a figure is too low now, if not for long enough."""
        return any(self.kept.get(f"{name}_low", 0) > 0 for name in TOLD)


def sound(progress: dict) -> bool:
    """Whether a run's weights deserve a checkpoint, by its progress."""
    return not Collapse(progress).looms
