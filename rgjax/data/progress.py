"""Progress of a long reading: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from rgjax.data.digest import Digest

_EVERY = 10.0  # seconds between lines in a log
_CHECK = 512  # rows between looks at the clock


def track(rows: Iterable[Digest], total_bytes: int) -> Iterator[Digest]:
    """Passes `rows` on and shows on stderr how far they are; `total_bytes` of 0 means unknown."""
    return _bar(rows, total_bytes) if sys.stderr.isatty() else _lines(rows, total_bytes)


def note(text: str) -> None:
    """One plain line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _lines(rows: Iterable[Digest], total: int) -> Iterator[Digest]:
    start = last = time.monotonic()
    done = 0
    for count, row in enumerate(rows, 1):
        done += row.size
        yield row
        if count % _CHECK == 0 and (now := time.monotonic()) - last >= _EVERY:
            last = now
            share = f" ({100 * done / total:.0f} %)" if total else ""
            note(f"read {count:,} examples{share}, {count / (now - start):,.0f}/s")


def _bar(rows: Iterable[Digest], total: int) -> Iterator[Digest]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("reading"), BarColumn(), TextColumn("{task.fields[count]:,} examples"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=total or None, count=0)
        done = 0
        for count, row in enumerate(rows, 1):
            done += row.size
            yield row
            if count % _CHECK == 0:
                progress.update(task, completed=done, count=count)
