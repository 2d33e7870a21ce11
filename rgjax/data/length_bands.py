"""The control code "length", derived by measuring the reasons: which of a few bands a text falls into."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re

from rgjax.errors import UserError

NAME = "length"
_FORM = re.compile(r"(words|characters):(\d+(?:,\d+)*)")


@dataclasses.dataclass(frozen=True)
class LengthBands:
    """Bands that begin at 0 and at each of the rising `bounds`, counted in `unit`: words (what spaces part) or characters."""

    unit: str
    bounds: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> LengthBands:
        """From 'words:30,60'; raises UserError where it is malformed or does not rise."""
        found = _FORM.fullmatch(text)
        bounds = tuple(map(int, found[2].split(","))) if found else ()
        if not found or any(a >= b for a, b in itertools.pairwise((0, *bounds))):
            raise UserError(f"--length_bands={text} is no 'words:30,60' or 'characters:40,80' with rising numbers above 0; mend it.")
        return cls(found[1], bounds)

    @property
    def values(self) -> list[str]:
        """The values of the code, the shortest first: under30, 30to59, from60."""
        between = [f"{low}to{high - 1}" for low, high in itertools.pairwise(self.bounds)]
        return [f"under{self.bounds[0]}", *between, f"from{self.bounds[-1]}"]

    def sizes(self, value: str) -> tuple[int, int | None]:
        """Least and greatest size of a value's texts; None has no end."""
        at = self.values.index(value)
        return (0, *self.bounds)[at], self.bounds[at] - 1 if at < len(self.bounds) else None

    def __str__(self) -> str:
        """As `parse` takes it."""
        return f"{self.unit}:{','.join(map(str, self.bounds))}"

    def of(self, reason: str) -> str:
        """The value of one clean text."""
        return self.values[bisect.bisect_right(self.bounds, self.size(reason))]

    def size(self, reason: str) -> int:
        """Words or characters of a text."""
        return len(reason.split()) if self.unit == "words" else len(reason)
