"""Collectives of a compiled program: among which devices, how many bytes, and what of them each device sends.

A ring over n devices sends, of an array of B bytes, 2 B (n - 1) / n for an all-reduce, B (n - 1) / n for an all-gather (B gathered), a
reduce-scatter (B before it) and an all-to-all, and B for a permutation (Chan et al. 2007, "Collective communication: theory, practice,
and experience": these are the least possible).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from profiling import costs
from profiling.program import Instruction, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SENT = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0, "all-to-all": 1.0}


@dataclasses.dataclass
class Collective:
    """One instruction: it runs `times` a step, on arrays of `bytes` (the whole one: gathered, or before scattering), in `group`s like this."""

    kind: str
    times: float
    bytes: int
    group: tuple[int, ...]  # device numbers
    source: str = ""  # as `costs.source`

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one run."""
        n = len(self.group)
        return self.bytes * (_SENT[self.kind] * (n - 1) / n if self.kind in _SENT else 1.0)


def found(program: Program, devices: int) -> Iterator[Collective]:
    """The collectives among more than one of the `devices`."""
    for i in program:
        kind = i.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = _pair(i) if kind == "collective-permute" else groups(i.attributes, devices)[0]
        size = sum(program.operand(i, n).bytes for n in range(len(i.operands)))
        if len(group) > 1:
            whole = size * (len(group) if kind == "all-gather" else 1)
            yield Collective(kind, i.times, whole, tuple(int(d) for d in group), costs.source(program, i))


def by_kind(collectives: list[Collective], shape: dict[str, int]) -> list[dict]:
    """Rows of `kind`, the mesh `axes` they go along, `count`, `bytes` and `sent` bytes a step, and `sources`: where most of them are sent.

    Those that send most come first.
    """
    rows: dict[tuple[str, str], dict] = {}
    for c in collectives:
        key = (c.kind, axes(c.group, shape))
        row = rows.setdefault(key, {"kind": key[0], "axes": key[1], "count": 0.0, "bytes": 0.0, "sent": 0.0, "sources": collections.Counter()})
        row |= {"count": row["count"] + c.times, "bytes": row["bytes"] + c.times * c.bytes, "sent": row["sent"] + c.times * c.sent}
        row["sources"][c.source or "XLA"] += c.times * c.sent
    for row in rows.values():
        row["sources"] = dict(row["sources"].most_common(3))
    return sorted(rows.values(), key=lambda row: -row["sent"])


def axes(group: tuple[int, ...], shape: dict[str, int]) -> str:
    """The mesh axes along which a group's devices differ, as 'data+fsdp'."""
    places = np.unravel_index(np.asarray(group), tuple(shape.values()))
    return "+".join(name for name, place in zip(shape, places, strict=True) if len(set(place.tolist())) > 1)


def groups(attributes: str, devices: int) -> np.ndarray:
    """Device numbers [groups, devices of a group], from a list, a reshaped range ('[4,2]<=[2,4]T(1,0)') or axes of a mesh."""
    text = attributes.partition("replica_groups=")[2]
    integers = lambda t: [int(n) for n in re.findall(r"\d+", t)]
    if text.startswith("mesh["):
        return _of_mesh(text)
    if made := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        numbers = np.arange(np.prod(integers(made[2]))).reshape(integers(made[2]))
        return (numbers.transpose(integers(made[3])) if made[3] else numbers).reshape(integers(made[1]))
    if made := re.match(r"\{(\{[\d,{}]+\})\}", text):
        return np.array([integers(one) for one in re.findall(r"\{([\d,]+)\}", made[1])])
    if not text or text.startswith("{}"):
        return np.arange(devices)[None]
    raise ValueError(f"replica groups are not understood: {text[:80]}")


def _of_mesh(text: str) -> np.ndarray:
    """As "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}"; an axis may be cut, "'b':(2)2" being two of its parts after the first two."""
    head, order, chosen = re.match(r"mesh\[([^\]]*)\](?:,\s*device_ids=\(([^ ]*)\))?\s*\{([^}]*)\}", text).groups()
    sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", head)}
    numbers = np.arange(int(np.prod(list(sizes.values()))))
    if order and (made := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?$", order)):
        numbers = numbers.reshape([int(n) for n in made[1].split(",")])
        numbers = numbers.transpose([int(n) for n in made[2].split(",")]) if made[2] else numbers
    elif order:
        numbers = np.array([int(n) for n in re.findall(r"\d+", order)])
    parts, wanted = [], []  # each axis of the mesh as one or three factors
    cuts = {name: (int(before), int(n)) for name, before, n in re.findall(r"'(\w+)':\((\d+)\)(\d+)", chosen)}
    whole = set(re.findall(r"'(\w+)'(?!:)", chosen))
    for name, n in sizes.items():
        before, own = cuts.get(name, (1, n))
        wanted += [False, name in whole or name in cuts, False]
        parts += [before, own, n // before // own]
    cube = numbers.reshape(parts)
    last = [k for k, w in enumerate(wanted) if w]
    return cube.transpose([k for k, w in enumerate(wanted) if not w] + last).reshape(-1, int(np.prod([parts[k] for k in last])))


def _pair(i: Instruction) -> list[int]:
    """A source and its target that differ; [] where none does."""
    pairs = re.findall(r"\{(\d+),(\d+)\}", i.attributes.partition("source_target_pairs=")[2])
    return next(([int(a), int(b)] for a, b in pairs if a != b), [])
