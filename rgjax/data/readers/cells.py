"""Cells of tables: names, attributes, numbers and times."""

from __future__ import annotations

import datetime
import math
import pathlib

from rgjax.errors import UserError


def name_of(row: dict, name: str, path: pathlib.Path, number: int) -> str:
    """The cell that names something; raises UserError where it is empty."""
    value = row[name]
    if value is None or not str(value).strip():
        raise UserError(f"{path.name}, row {number}: '{name}' is empty; every row needs it.")
    return str(value).strip()


def attribute(value):
    """A cell as an attribute: 'a|b' is a list."""
    if isinstance(value, str) and "|" in value:
        return [part.strip() for part in value.split("|") if part.strip()]
    return value if isinstance(value, (str, int, float, bool, list)) else str(value)


def text(value) -> str | None:
    """The cell as text; None stays None."""
    return None if value is None else str(value)


def number(value) -> float | int | None:
    """The cell as a number; None where it is none."""
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        return float(value)
    except ValueError:
        return None


def seconds(value, path: pathlib.Path, number: int) -> float | int | None:
    """Seconds since 1970 of a number or an ISO date (without a zone: UTC); None for an empty cell; raises UserError for others."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    try:
        if isinstance(value, str):
            try:
                return _whole(float(value))
            except ValueError:
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return _whole((value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp())
        return value
    except ValueError:
        raise UserError(
            f"{path.name}, row {number}: time '{value}' is neither a number of seconds nor an ISO date; mend it."
        ) from None


def _whole(seconds: float) -> float | int:
    return int(seconds) if seconds.is_integer() else seconds


def quantity(row: dict, name: str, path: pathlib.Path, number: int) -> float:
    """A finite number from 0 in column `name`, NaN where the cell is empty; raises UserError for anything else."""
    value = row.get(name)
    if value is None:
        return math.nan
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise UserError(f"{path.name}, row {number}: {name} '{value}' is not a number from 0; mend it or leave the cell empty.")
    return found
