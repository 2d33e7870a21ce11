"""What the readers of shops share: what they are told, what they give, and the checks of events."""

from __future__ import annotations

import dataclasses
import datetime
import math
import pathlib
import time as clock

import numpy as np

from rgjax.data.bundles import Bundles
from rgjax.data.interactions import Interactions
from rgjax.data.readers import cells
from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """`now` in seconds: an event after it is an error. `max_duplicate_share`: more equal events than this share is an error."""

    now: int
    max_duplicate_share: float = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a source holds; `dropped` counts the rows left out, by cause."""

    interactions: Interactions
    bundles: Bundles | None = None
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)


def options(now: str = "", max_duplicate_share: float = 0.5) -> Options:
    """Options from flags; `now` is seconds or an ISO date, '' is the clock. Raises UserError when it is neither."""
    found = cells.seconds(now, pathlib.Path("--now"), 0) if now == "" or now.isdecimal() else _date(now)
    return Options(int(clock.time()) if found is None else int(found), max_duplicate_share)


def _date(text: str) -> float:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--now={text} is neither a number of seconds nor an ISO date; mend it.") from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def moment(value, path: pathlib.Path, number: int) -> int:
    """Whole seconds of the time in row `number`; raises UserError where it is empty or no time."""
    found = cells.seconds(value, path, number)
    if found is None:
        raise UserError(f"{path.name}, row {number} has no time; add it or drop the row.")
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not abs(found) < 2**62:  # neither is NaN
        raise UserError(f"{path.name}, row {number}: time '{value}' is neither a number of seconds nor an ISO date; mend it.")
    return math.floor(found)


def refuse_future(time: np.ndarray, where: str, told: Options) -> None:
    """Raises UserError naming the first event after `told.now`; `where` says what row i is, as in 'events.csv, row {row}'."""
    late = np.flatnonzero(time > told.now)
    if len(late):
        seconds = int(time[late[0]])
        try:
            shown = f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError, OSError):
            shown = f"{seconds:,} s"
        row = where.format(row=late[0] + 1)
        raise UserError(f"{row}: its time {shown} lies in the future; give seconds since 1970 (not milliseconds), mend it, or set --now.")


def distinct(columns: list[np.ndarray], path: pathlib.Path, told: Options) -> np.ndarray:
    """bool [E]: the first of each group of rows with equal `columns`; raises UserError when too many are repeated."""
    stacked = np.rec.fromarrays([np.asarray(c) for c in columns])
    _, first = np.unique(stacked, return_index=True)
    kept = np.zeros(len(stacked), bool)
    kept[first] = True
    repeated = len(kept) - len(first)
    if repeated > told.max_duplicate_share * len(kept):
        raise UserError(
            f"{repeated:,} of the {len(kept):,} rows of {path} repeat an earlier one, more than --max_duplicate_share="
            f"{told.max_duplicate_share:g}; drop them or raise it."
        )
    return kept
