"""Operations of a profiler trace (*.xplane.pb, as jax.profiler writes it), with the time that each took itself.

Accelerators have a plane each, whose events are operations; on CPU they lie on the lines of the host's threads. On one line an event that
lies within another (a loop's body in the loop) is taken off the outer one, so that no time counts twice. Loops, calls and conditions may
also wait for operations on other threads: their own time is none.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator

from rgjax.errors import UserError, first_line

_DEVICE = re.compile(r"^/device:(?!CUSTOM)\w+:\d+")
_WAITING = re.compile(r"^(while|conditional|call)(\.\d+)*$")


@dataclasses.dataclass
class Operation:
    """All runs of one operation: how many there were, and their own seconds, of all devices together."""

    module: str
    name: str
    runs: int = 0
    seconds: float = 0.0


@dataclasses.dataclass
class Trace:
    """`operations` with the most time first; `lines` of devices or threads ran some; `steps` are the annotated ones: number, seconds."""

    operations: list[Operation]
    steps: list[tuple[int, float]]
    lines: int

    @property
    def seconds(self) -> float:
        """Of all operations."""
        return sum(o.seconds for o in self.operations)


def newest(folder: str | pathlib.Path) -> pathlib.Path:
    """The latest trace below a folder; raises UserError when there is none."""
    found = sorted(pathlib.Path(folder).rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{folder} holds no trace (*.xplane.pb); make one with profiling.trace or launch.train --profile_steps.")
    return found[-1]


def read(path: pathlib.Path, step_name: str = "train", waiting: Iterable[str] = ()) -> Trace:
    """A trace's operations and its steps annotated as `step_name`; `waiting` names operations that only wait for others."""
    import jax

    try:
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    except Exception as error:  # the reader raises what its library does
        raise UserError(f"{path} is no trace ({first_line(error)}); make it again with profiling.trace.") from None
    devices, waits = [plane for plane in planes if _DEVICE.match(plane.name)], set(waiting)
    found: dict[tuple[str, str], Operation] = {}
    steps: dict[int, float] = {}
    lines = 0
    for plane in planes:
        for line in plane.lines:
            steps |= dict(_steps(line, step_name)) if plane not in devices else {}
        for line in _lines(plane) if plane in devices or not devices else ():
            lines += 1
            for (module, name), duration in own_times(_events(line)):
                if _WAITING.match(name) or name in waits:
                    continue
                one = found.setdefault((module, name), Operation(module, name))
                one.runs, one.seconds = one.runs + 1, one.seconds + duration * 1e-9
    return Trace(sorted(found.values(), key=lambda o: -o.seconds), sorted(steps.items()), lines)


def own_times(events: Iterable[tuple[float, float, tuple]]) -> Iterator[tuple[tuple, float]]:
    """(what, own duration) of events (start, duration, what) on one line: without the events that lie within them."""
    open_events: list[list] = []  # [end, what, own duration]
    for start, duration, what in sorted(events, key=lambda e: (e[0], -e[1])):
        while open_events and open_events[-1][0] <= start:
            _, closed, own = open_events.pop()
            yield closed, max(own, 0.0)
        if open_events:
            open_events[-1][2] -= min(duration, open_events[-1][0] - start)
        open_events.append([start + duration, what, duration])
    yield from ((what, max(own, 0.0)) for _, what, own in reversed(open_events))


def _lines(plane) -> list:
    """The lines with operations: TPUs have one for them among others, elsewhere each thread or stream may have some."""
    named = [line for line in plane.lines if line.name == "XLA Ops"]
    return named or [line for line in plane.lines if any(True for _ in _events(line))]


def _events(line) -> Iterator[tuple[float, float, tuple[str, str]]]:
    for event in line.events:
        if line.name == "XLA Ops":
            yield event.start_ns, event.duration_ns, ("", event.name.split(" = ")[0].lstrip("%"))
        elif not event.name.startswith("end: ") and "hlo_op" in (stats := dict(event.stats)):
            yield event.start_ns, event.duration_ns, (str(stats.get("hlo_module", "")), named(str(stats["hlo_op"]), event.name))


def named(operation: str, kernel: str) -> str:
    """What a kernel is told as: its operation or, of a graph of kernels (command buffer), itself; XLA's own are named as their operation is."""
    return re.sub(r"_(\d+)$", r".\1", kernel) if operation.startswith("command_buffer") else operation


def _steps(line, name: str) -> Iterator[tuple[int, float]]:
    for event in line.events:
        if event.name == name and "step_num" in (stats := dict(event.stats)):
            yield int(stats["step_num"]), event.duration_ns * 1e-9
