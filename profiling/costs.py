"""What instructions of a compiled program cost, and which module of the model they belong to.

FLOPs as XLA counts them: a product and its sum are two, other arithmetic one an entry, exponentials and roots none. Bytes are what an
instruction reads and writes in memory: inside a fusion nothing is, and of an array of which only a slice is read, the slice counts.
Modules are told by the Python calls that an instruction came from, backwards as forwards; a fusion's bytes go to the module of its
last operation, its FLOPs to each operation's own.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

from profiling.program import WITHIN, Frame, Instruction, Program

# File of a frame, and the function where that decides: the innermost frame that matches names the module.
MODULES = (
    (r"rgjax/nn/adapters/", "", "adapter"),
    (r"rgjax/nn/(attention|positions)\.py$", "", "attention"),
    (r"rgjax/nn/feedforward\.py$", "", "feed-forward"),
    (r"rgjax/nn/norms\.py$", "", "norms"),
    (r"rgjax/nn/dropout\.py$", "", "dropout"),
    (r"rgjax/train/(loss|distillation)\.py$", "", "head and loss"),
    (r"rgjax/models/transformer\.py$", r"^(Embedding|Entrance)\.", "embedding"),
    (r"rgjax/models/", "", "residuals and masks"),
    (r"rgjax/(tasks/reason\.py|trees\.py)$", "", "residuals and masks"),
    (r"rgjax/train/step\.py$", r"make_loss", "residuals and masks"),
    (r"(/optax/|rgjax/train/)", "", "optimizer"),
)
OTHER = "copies by XLA"  # what the compiler made without saying for whom
ARITHMETIC = {
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "negate", "abs", "compare", "select", "and", "or", "xor", "not", "clamp",
    "sign", "floor", "ceil", "remainder", "shift-left", "shift-right-logical", "shift-right-arithmetic", "is-finite",
}  # fmt: skip
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id", "iota", "opt-barrier"}
SLICING = {"dynamic-slice", "slice", "gather"}


@dataclasses.dataclass
class Cost:
    """FLOPs and bytes of a step; `matrix` are the FLOPs of matrix products among them."""

    flops: float = 0.0
    matrix: float = 0.0
    bytes: float = 0.0

    def add(self, flops: float, matrix: float, moved: float) -> None:
        """Adds in place."""
        self.flops, self.matrix, self.bytes = self.flops + flops, self.matrix + matrix, self.bytes + moved

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


def by_module(program: Program) -> dict[str, Cost]:
    """The cost of a step's modules, on one device."""
    found: dict[str, Cost] = collections.defaultdict(Cost)
    for i in program:
        matrix = matrix_flops(program, i)
        found[module(program, i)].add(i.times * flops(program, i), i.times * matrix, i.times * moved(program, i))
    return dict(sorted(found.items(), key=lambda item: -item[1].flops))


def seconds(program: Program, peak: float, bandwidth: float) -> float:
    """A step on one device if each operation takes as long as its FLOPs at `peak` or its bytes at `bandwidth`, whichever is more."""
    inside: dict[str, float] = collections.defaultdict(float)  # FLOPs of a fusion lie in its computation
    for i in program:
        if i.fused:
            inside[i.computation] += flops(program, i)
    total = 0.0
    for i in program:
        if not i.fused:
            work = flops(program, i) + sum(_nested(program, name, inside) for name in i.called("calls") if i.opcode == "fusion")
            total += i.times * max(work / peak, moved(program, i) / bandwidth)
    return total


def _nested(program: Program, computation: str, inside: dict[str, float]) -> float:
    deeper = (name for i in program.computations[computation].values() if i.opcode in WITHIN for name in i.called("calls", "to_apply"))
    return inside[computation] + sum(_nested(program, name, inside) for name in deeper)


def flops(program: Program, i: Instruction) -> float:
    """FLOPs of running an instruction once, without what it calls."""
    if i.opcode in ARITHMETIC:
        return i.elements
    if i.opcode in ("reduce", "reduce-window"):
        return max(0, sum(program.operand(i, n).elements for n in range(len(i.operands) // 2)) - i.elements)
    return matrix_flops(program, i)


def matrix_flops(program: Program, i: Instruction) -> float:
    """FLOPs of a matrix product, 0 of anything else: two for each entry given and each index summed over."""
    if i.opcode == "dot":
        dims = program.operand(i, 0).arrays[0][1]
        return 2.0 * i.elements * math.prod(dims[n] for n in i.integers("lhs_contracting_dims"))
    if i.opcode == "custom-call" and re.search("gemm|matmul", i.text("custom_call_target")):  # cuBLAS on GPUs
        summed = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
        dims = program.operand(i, 0).arrays[0][1]
        return 2.0 * math.prod(i.arrays[0][1]) * math.prod(dims[int(n)] for n in re.findall(r"\d+", summed[1])) if summed else 0.0
    if i.opcode == "custom-call" and "__cudnn$fmha" in (target := i.text("custom_call_target")):
        return _attention_flops(program, i, backward="Backward" in target)
    return 0.0


def _attention_flops(program: Program, i: Instruction, backward: bool) -> float:
    """Of cuDNN's fused attention: two products of all scores with heads, five backwards; half of it where each query reads none after it."""
    scores = re.search(r'"intermediate_tensor_shape":\{[^{}]*?"dimensions":\[([^\]]*)\]', i.attributes)
    if not scores:
        return 0.0
    head = program.operand(i, 0).arrays[0][1][-1]  # queries are [B, T, N, H] or [B, N, T, H]
    dense = 2.0 * math.prod(int(n) for n in re.findall(r"\d+", scores[1])) * head * (5 if backward else 2)
    return dense / 2 if re.search(r'"mask_type":"\w*CAUSAL', i.attributes) else dense


def moved(program: Program, i: Instruction) -> float:
    """Bytes that running an instruction once reads and writes in memory."""
    if i.fused or i.opcode in FREE or (i.opcode in WITHIN and i.opcode != "fusion") or i.opcode.endswith("-done"):
        return 0.0
    if i.opcode in SLICING:
        return 2.0 * i.bytes
    if i.opcode == "dynamic-update-slice":
        return 2.0 * program.operand(i, 1).bytes
    if i.opcode == "fusion":
        return _fusion_moves(program, i)
    return i.bytes + sum(program.operand(i, n).bytes for n in range(len(i.operands)))


def _fusion_moves(program: Program, i: Instruction) -> float:
    members = program.computations[i.called("calls")[0]]
    users: dict[str, list[tuple[Instruction, int]]] = collections.defaultdict(list)
    for m in members.values():
        for place, name in enumerate(m.operands):
            users[name].append((m, place))
    total = 0.0
    for m in members.values():
        if m.opcode == "parameter":
            total += _read(m, users)
        elif m.root:
            last = m
            while last.opcode in ("bitcast", "copy", "convert") and last.operands:
                last = members[last.operands[0]]
            total += members[last.operands[1]].bytes if last.opcode == "dynamic-update-slice" else m.bytes
    return total


def _read(parameter: Instruction, users: dict) -> float:
    """What of a fusion's operand is read: slices of it, nothing where it is only written into, or all."""
    total = 0.0
    for user, place in users[parameter.name]:
        if user.opcode in SLICING and place == 0:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and place == 0:
            continue
        elif user.opcode == "bitcast":
            total += _read(user, users)
        else:
            return parameter.bytes
    return min(total, parameter.bytes)


def module(program: Program, i: Instruction) -> str:
    """The module that an instruction belongs to; see MODULES."""
    return next((name for frame in program.frames(i) for name in _module(frame)), OTHER)


def source(program: Program, i: Instruction) -> str:
    """The innermost rgjax call that an instruction came from, as 'Attention.keys_values:142'; '' where XLA made it."""
    own = [frame for frame in program.frames(i) if "/rgjax/" in frame.file] or program.frames(i)
    own = [frame for frame in own if not frame.file.endswith("nn/linear.py")] or own
    return f"{own[0].function.replace('.<locals>', '')}:{own[0].line}" if own else ""


def _module(frame: Frame) -> Iterator[str]:
    for file, function, name in MODULES:
        if re.search(file, frame.file) and re.search(function, frame.function):
            yield name
            return
