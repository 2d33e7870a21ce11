"""Layout 'preferences': which of two reasons people liked better, from questionnaires or A/B logs, as JSON lines.

A line is an example without `reason` (see records), with `reasons`, the two texts in the order in which they were shown, and `preferred`, 1 or
2. Judgements lean to a place, the first text or the last, whatever stands there. So where two texts for an item were shown in both orders,
to whomever, each order counts alike, however often it was asked, and the pair is left out where neither wins more than half that way: people
chose the place. One that was shown in one order only is taken at its word. A pair becomes an example for each shopper who agrees with the
outcome, with the text liked less as `rejected`; preferences.json tells how many judgements and pairs there were, how many
by shopper (`asked`), and how often the first place won.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, in_chunks, jsonl
from rgjax.data.records import Controls, RecordError, Row, encode
from rgjax.data.splits import hash64

JUDGED = ("id", "reasons", "preferred", "reason", "rejected")  # fields of one judgement; the others say what was asked
SHOPPER = ("user", "history")  # who was asked
Votes = dict[int, list[int]]  # by what was asked: of each order [wins of the lesser text, times shown], one after the other


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Reads the files twice: first the votes, then the examples."""
    return source([(path, jsonl.split_of(path)) for path in jsonl.files(config.source)], controls, judgement)


def source(paths: list[tuple[pathlib.Path, str | None]], controls: Controls, convert: Callable[[dict], dict]) -> Source:
    """The pairs of `paths`, (file, split) each; `convert` turns a parsed line into one of this layout."""
    votes, own = {}, {}  # of all shoppers, and of each
    judgements = firsts = 0
    for row, problem, line in _judged(paths, convert):
        if problem is None:
            judgements, firsts = judgements + 1, firsts + (line["preferred"] == 1)
            _count(votes, _pair(line, row.split), line)
            _count(own, _asked(line, row.split), line)
    told = {"judgements": judgements, "pairs": len(votes), "asked": len(own), "first_place_won": firsts / max(judgements, 1)}
    told |= {"shown_in_both_orders": sum(v[1] > 0 and v[3] > 0 for v in votes.values()), "undecided": sum(_lean(v) == 0 for v in votes.values())}
    splits = frozenset(split for _, split in paths if split)
    return Source(in_chunks(_rows(paths, convert, votes, own)), splits, jsonl.size(paths), controls, extras={"preferences.json": told})


def judgement(line: dict) -> dict:
    """A line of this layout, checked; raises RecordError."""
    reasons, preferred = jsonl.field(line, "reasons", list), jsonl.field(line, "preferred", (int, str))
    if len(reasons) != 2 or not all(type(text) is str and text.strip() for text in reasons):
        raise RecordError("'reasons' must be a list of two texts")
    if str(preferred) not in ("1", "2"):
        raise RecordError(f"'preferred' is {preferred!r}; it must be 1 or 2, the place of the reason that was liked better")
    if " ".join(reasons[0].split()) == " ".join(reasons[1].split()):
        raise RecordError("both reasons are the same text, and a preference is between two", "pair of one text")
    return line | {"preferred": int(preferred)}


def _judged(paths, convert) -> Iterator[tuple[Row, RecordError | None, dict]]:
    """(where it stood, what is wrong with it, the line) of every line."""
    for chunk in jsonl.chunks(paths, convert):
        for row in chunk.rows():
            yield row, row.problem, row.example


def _rows(paths, convert, votes: Votes, own: Votes) -> Iterator[Row]:
    given = set()
    for row, problem, line in _judged(paths, convert):
        if problem is not None:
            yield row
        elif (key := _asked(line, row.split)) not in given and (lean := _lean(votes[_pair(line, row.split)])) and _lean(own[key]) == lean:
            given.add(key)
            lesser, greater = sorted(line["reasons"])
            chosen, rejected = (lesser, greater) if lean > 0 else (greater, lesser)
            example = {name: value for name, value in line.items() if name not in JUDGED}
            yield row._replace(example=example | {"reason": chosen, "rejected": rejected})


def _pair(line: dict, split: str | None) -> int:
    """The two texts, and what they were shown for; in each split of the files apart, so that none is decided by what is held out."""
    return _hash({name: value for name, value in line.items() if name not in (*JUDGED, *SHOPPER)}, line, split)


def _asked(line: dict, split: str | None) -> int:
    """The same, and the shopper who was asked."""
    return _hash({name: value for name, value in line.items() if name not in JUDGED}, line, split)


def _hash(fields: dict, line: dict, split: str | None) -> int:
    return hash64(encode(fields | {"": [split or "", *sorted(line["reasons"])]}))


def _count(votes: Votes, key: int, line: dict) -> None:
    one, other = line["reasons"]
    won, order = votes.setdefault(key, [0, 0, 0, 0]), 0 if one < other else 2
    won[order] += (line["preferred"] == 1) == (order == 0)
    won[order + 1] += 1


def _lean(won: list[int]) -> int:
    """1 where the lesser text is liked better, -1 the greater, 0 neither; exact, in whole numbers."""
    if won[1] and won[3]:
        double = won[0] * won[3] + won[2] * won[1] - won[1] * won[3]
    else:
        double = 2 * (won[0] + won[2]) - won[1] - won[3]
    return (double > 0) - (double < 0)
