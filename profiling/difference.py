"""Whether two dumps of a step are the same program, and where they are not.

Names, numbers of channels, and where in the source an operation came from do not count: an unchanged step compares equal after lines were
moved or a file was renamed. What else differs is told by operations, not by lines: each is its shape, its kind, the shapes that it reads
and its attributes, and the two programs' bags of operations are compared.
"""

from __future__ import annotations

import collections
import re

from profiling.program import Instruction, Program

_IDENTIFIER = re.compile(r"%[\w.\-]+|@[\w.\-]+")
_UNSAID = re.compile(r",? ?(metadata|frontend_attributes)=\{(?:[^{}\"]|\"(?:[^\"\\]|\\.)*\"|\{[^{}]*\})*\}|,? ?channel_id=\d+")
_TABLES = re.compile(r"^(FileNames|FunctionNames|FileLocations|StackFrames)\n(?:\d.*\n)*\n?", re.M)


def canonical(text: str) -> str:
    """A program's text without what does not count, its names numbered in the order in which they come."""
    text = _UNSAID.sub("", _TABLES.sub("", text))
    text = re.sub(r"^HloModule \S+", "HloModule", text)
    text = re.sub(r"^((?:ENTRY )?%[\w.\-]+) \(.*\{$", r"\1 {", text, flags=re.M)  # parameters are named again below
    numbers: dict[str, str] = {}
    return _IDENTIFIER.sub(lambda found: numbers.setdefault(found[0], f"{found[0][0]}{len(numbers)}"), text)


def anonymous(program: Program, i: Instruction) -> str:
    """An operation without names."""
    if i.opcode == "constant":
        return f"{i.shape} constant({i.attributes})"
    members = program.computations[i.computation]
    read = ", ".join(members[name].shape for name in i.operands if name in members)
    attributes = _IDENTIFIER.sub("%", _UNSAID.sub("", i.attributes))
    return f"{i.shape} {i.opcode}({read}){attributes}"


def operations(program: Program) -> collections.Counter:
    """How many of each operation the program's text holds."""
    return collections.Counter(anonymous(program, i) for i in program)


def kinds(program: Program) -> collections.Counter:
    """How many instructions of each kind the program's text holds; those of fusions too."""
    return collections.Counter(i.opcode for i in program)


def between(before: dict[str, str], now: dict[str, str]) -> dict:
    """Of two dumps ("lowered" and "compiled" texts): whether each is the `same`, and the compiled ones' changed `kinds` and `operations`.

    Counts are (before, now).
    """
    same = {name: canonical(before[name]) == canonical(now[name]) for name in now}
    if same["compiled"]:
        return {"same": same, "kinds": {}, "operations": {}}
    programs = [Program(dump["compiled"]) for dump in (before, now)]
    pairs = {"kinds": [kinds(p) for p in programs], "operations": [operations(p) for p in programs]}
    return {"same": same} | {name: _changed(*counts) for name, counts in pairs.items()}


def _changed(before: collections.Counter, now: collections.Counter) -> dict[str, tuple[int, int]]:
    """What the two count differently, the largest difference first."""
    keys = [key for key in before | now if before[key] != now[key]]
    return {key: (before[key], now[key]) for key in sorted(keys, key=lambda key: (-abs(before[key] - now[key]), key))}
