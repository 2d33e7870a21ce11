"""The work on one row that needs no other row: check, clean, choose the split, encode. It may run in any process, in any order."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rgjax.config import PrepareConfig
from rgjax.data import cleaning, length_bands, records
from rgjax.data.derived import WordCodes
from rgjax.data.length_bands import LengthBands
from rgjax.data.readers import Source
from rgjax.data.splits import Splitter, hash64

_POOL_BYTES = 64 << 20  # a smaller source is done before worker processes have started
_MOST_PROCESSES = 4  # beyond that the main process, which counts and writes, sets the pace


class Digest(NamedTuple):
    """A row worked off: `problem` says why it is no example, `unwanted` why it is not kept; hashes are 0 where the field is empty."""

    where: str
    size: int
    problem: records.RecordError | None = None
    unwanted: str = ""
    split: str = ""
    text: str = ""  # compact JSON without the control codes: what makes two examples duplicates
    control: str = ""
    key: int = 0
    user: int = 0
    item: int = 0
    reason: int = 0
    self_reference: bool = False  # the candidate is in its own history
    trouble: bool = False  # signs of a wrong encoding
    shown: str = ""  # a few words for the report
    derived: dict[str, str] = {}  # what its words say, and
    own: dict[str, str] = {}  # its own control codes

    def record(self) -> bytes:
        """The bytes kept on disk."""
        return f'{self.text[:-1]},"control":{self.control}}}'.encode()


@dataclasses.dataclass(frozen=True)
class Job:
    """What every row is worked off with."""

    config: PrepareConfig
    controls: dict[str, list[str]]
    splitter: Splitter
    bands: LengthBands | None = None  # of the reasons' lengths, which become a control code
    word_codes: WordCodes | None = None

    def digest(self, row: records.Row) -> Digest:
        """One row worked off."""
        try:
            if row.problem is not None:
                raise row.problem
            records.check(row.example, self.controls)
            example = cleaning.clean_example(row.example)
            if example.get("rejected") == example["reason"]:
                raise records.RecordError("'reason' and 'rejected' are the same text, and a preference is between two", "pair of one text")
            split = self.splitter(example, row.split)
        except records.RecordError as error:
            return Digest(row.where, row.size, error)
        reason, item, user = example["reason"], example["item"], example["user"].get("id")
        if unwanted := self._unwanted(reason) or ("rejected" in example and self._unwanted(example["rejected"])):
            return Digest(row.where, row.size, None, unwanted, shown=reason[:80])
        own = example.pop("control")
        derived = self.word_codes.of(reason) if self.word_codes else {}
        control = records.encode(derived | own | ({length_bands.NAME: self.bands.of(reason)} if self.bands else {}))
        text = records.encode(example)
        name = item.get("id") or item.get("title") or ""
        return Digest(
            row.where,
            row.size,
            split=split,
            text=text,
            control=control,
            key=hash64(text),
            user=hash64(user) if user else 0,
            item=hash64(name) if name else 0,
            reason=hash64(reason),
            self_reference=_in_history(item, example["history"]),
            trouble=cleaning.has_trouble(text),
            shown=f"user {user}, item {name}"[:120] if user else f"item {name}"[:120],
            derived=derived,
            own=own,
        )

    def _unwanted(self, reason: str) -> str:
        if len(reason) < self.config.min_reason_chars:
            return "reason too short"
        return "reason too long" if len(reason) > self.config.max_reason_chars else ""


def digests(job: Job, source: Source) -> Iterator[Digest]:
    """Every row of `source` worked off, in order; large sources on several processes, with the same result."""
    work = functools.partial(_work, job)
    cores = len(os.sched_getaffinity(0))
    if source.size < _POOL_BYTES or cores == 1:
        done = map(work, source.chunks)
    else:
        done = _ordered(work, source.chunks, min(cores, _MOST_PROCESSES))
    for chunk in done:
        yield from chunk


def _work(job: Job, chunk) -> list[Digest]:
    return [job.digest(row) for row in chunk.rows()]


def _ordered(work, chunks: Iterable, processes: int) -> Iterator[list[Digest]]:
    """`map` over processes that never reads more than a few chunks ahead."""
    # Spawned, not forked: the parent holds threads of libraries that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(processes, mp_context=context)
    waiting: collections.deque = collections.deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_history(item: dict, history: list[dict]) -> bool:
    name, title = item.get("id"), item.get("title")
    for event in history:
        other = event.get("item")
        if (name is not None and other == name) or ((name is None or other is None) and title and event.get("title") == title):
            return True
    return False
