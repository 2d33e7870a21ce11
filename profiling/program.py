"""A compiled program, read from its HLO text: instructions with how often a step runs each, and the source they came from.

Loops count by their known trip count (XLA itself counts a loop's body once). The loss goes through the pieces of a batch in which some
row has a target, and only the batch knows how many: its loop counts `pieces` times. Of a conditional the branch that does more work counts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b(pred|token|opaque|c64|c128|bf16|[sufi]\d+(?:e\d+m\d+\w*)?)\[([\d,<= ]*)\]")
_NAMED = re.compile(r"%([\w.\-]+)")
_FRAME = re.compile(r"\bstack_frame_id=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"\b(body|condition|calls|to_apply|true_computation|false_computation|branch_computations)=(\{[^}]*\}|%[\w.\-]+)")
LOSS = "rgjax/train/loss.py"
WITHIN = {"fusion", "call", "async-start", "while", "conditional"}  # instructions that run other computations


@dataclasses.dataclass
class Frame:
    """A Python call on the way to an operation."""

    file: str
    function: str  # qualified name
    line: int


@dataclasses.dataclass
class Instruction:
    """`times` a step runs it (0 where never reached); `fused` ones read and write no memory of their own."""

    name: str
    opcode: str
    shape: str
    operands: list[str]
    attributes: str
    root: bool
    computation: str
    times: float = 0.0
    fused: bool = False

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...]]]:
        """(type, dimensions) of every array it gives."""
        return arrays(self.shape)

    @property
    def elements(self) -> int:
        """Entries of all arrays it gives."""
        return sum(math.prod(dims) for _, dims in self.arrays)

    @property
    def bytes(self) -> int:
        """Size of all arrays it gives."""
        return sum(size(kind, dims) for kind, dims in self.arrays)

    def called(self, *names: str) -> list[str]:
        """The computations that it runs under these attributes, in order."""
        return [found for name, text in _CALLED.findall(self.attributes) if name in names for found in _NAMED.findall(text)]

    def text(self, name: str) -> str:
        """The value of an attribute, '' without it."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^,\s]+)", self.attributes)
        return found[1] if found else ""

    def integers(self, name: str) -> list[int]:
        """The numbers of an attribute such as lhs_contracting_dims={2}."""
        return [int(n) for n in re.findall(r"\d+", self.text(name))]


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """(type, dimensions) of the arrays in a shape's text."""
    return [(kind, tuple(int(n) for n in re.findall(r"\d+", dims))) for kind, dims in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", shape))]


def size(kind: str, dims: tuple[int, ...]) -> int:
    """Bytes of an array."""
    bits = _BITS.get(kind) if kind in _BITS else int(re.search(r"\d+", kind)[0])
    return math.ceil(bits * math.prod(dims) / 8)


class Program:
    """One compiled module."""

    def __init__(self, text: str, pieces: float = 0.0):
        self.text, self.pieces = text, pieces
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.unknown_loops: list[str] = []  # whose trip count XLA does not tell; they count once
        self._tables(text)
        entry = self._read(text)
        self._count(entry, 1.0, False)

    @classmethod
    def of(cls, compiled, pieces: float = 0.0) -> Program:
        """That of `jit(...).lower(...).compile()`."""
        return cls(compiled.as_text(), pieces)

    def __iter__(self) -> Iterator[Instruction]:
        """Every instruction that a step runs."""
        return (i for members in self.computations.values() for i in members.values() if i.times)

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name, which is unique in a module."""
        return {name: i for members in self.computations.values() for name, i in members.items()}

    def operand(self, of: Instruction, number: int) -> Instruction:
        """The instruction that an operand names."""
        return self.computations[of.computation][of.operands[number]]

    def frames(self, of: Instruction) -> list[Frame]:
        """The Python calls that an instruction came from, innermost first; [] where XLA made it. A fusion has its root's."""
        found = _FRAME.search(of.attributes)
        return self._chain(int(found[1])) if found else []

    def _tables(self, text: str) -> None:
        head = text.split("\n%", 1)[0]
        rows = lambda name: re.findall(r"^(\d+) (.+)$", (re.search(rf"^{name}\n((?:\d.*\n)*)", head, re.M) or ["", ""])[1], re.M)
        fields = lambda row: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)}
        files, functions = ({int(n): t.strip('"') for n, t in rows(name)} for name in ("FileNames", "FunctionNames"))
        self._places = {
            int(n): Frame(files.get(f["file_name_id"], ""), functions.get(f["function_name_id"], ""), f.get("line", 0))
            for n, f in ((n, fields(t)) for n, t in rows("FileLocations"))
        }
        stack = {int(n): fields(t) for n, t in rows("StackFrames")}
        beyond = stack.get(1, {}).get("parent_frame_id", 0)  # the outermost frame's parent: jaxlib 0.10 prints all parents one too high
        self._stack = {n: (f["file_location_id"], f.get("parent_frame_id", beyond) - beyond) for n, f in stack.items()}

    def _chain(self, frame: int) -> list[Frame]:
        found: list[Frame] = []
        while frame in self._stack:
            place, frame = self._stack[frame]
            found.append(self._places[place])
        return found

    def _read(self, text: str) -> str:
        """Fills the computations; returns the entry's name."""
        entry, members, name = "", None, ""
        for line in text.splitlines():
            if line[:1] in "%E" and line.endswith("{"):
                name = _NAMED.search(line)[1]
                members = self.computations[name] = {}
                entry = name if line.startswith("ENTRY") else entry
            elif line.startswith("}"):
                members = None
            elif members is not None and (made := _instruction(line, name)):
                members[made.name] = made
        return entry

    def _count(self, computation: str, times: float, fused: bool) -> None:
        for i in self.computations[computation].values():
            i.times, i.fused = i.times + times, fused
            if i.opcode == "while":
                rounds = self._rounds(i)
                self._count(i.called("body")[0], times * rounds, fused)
                self._count(i.called("condition")[0], times * (rounds + 1), fused)
            elif i.opcode == "conditional":
                self._count(max(i.called("true_computation", "false_computation", "branch_computations"), key=self._length), times, fused)
            elif i.opcode in WITHIN:
                for inner in i.called("calls", "to_apply"):
                    self._count(inner, times, fused or i.opcode == "fusion")

    def _rounds(self, loop: Instruction) -> float:
        if trips := _TRIPS.search(loop.attributes):
            return int(trips[1])
        if self.pieces and any(frame.file.endswith(LOSS) for frame in self.frames(loop)):
            return self.pieces
        self.unknown_loops.append(loop.name)
        return 1

    def _length(self, computation: str) -> int:
        """Instructions of a computation and of those that it runs."""
        own = self.computations[computation].values()
        inner = (name for i in own if i.opcode in WITHIN for name in i.called("calls", "to_apply", "body"))
        return len(own) + sum(self._length(name) for name in inner)


def _instruction(line: str, computation: str) -> Instruction | None:
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not found:
        return None
    rest = line[found.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    close = _closing("(" + rest, 0) - 1
    given, attributes = rest[:close], rest[close + 1 :]
    if opcode == "constant":  # its value
        return Instruction(found[2], opcode, shape, [], given, bool(found[1]), computation)
    return Instruction(found[2], opcode, shape, _NAMED.findall(given), attributes, bool(found[1]), computation)


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)
