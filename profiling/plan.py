"""Which mesh suits a model on machines that are not here: its step is compiled for each mesh, and never run.

    python -m profiling.plan --flagfile=configs/demo.cfg --mesh=data:8,fsdp:8
    python -m profiling.plan --flagfile=configs/demo.cfg --batch_size=512 --mesh='data:64;data:8,fsdp:8'      (several, compared)
    python -m profiling.plan --flagfile=configs/demo.cfg --batch_size=64 --devices=8 --mesh=auto     (all that fit --devices)

XLA partitions the step for fake CPU devices, and from the compiled program come memory a device, collectives and FLOPs. Without --dataset
the vocabulary has --vocab_size tokens and every piece of the loss counts as computed; with it, the first batch says how many are.
A step is predicted as (each operation at its FLOPs or its bytes, whichever takes longer) + (each collective at the bytes that a device
sends, no latency), without overlap; with perfect overlap it takes the longer of both. The defaults are one H200's data sheet: 989 TFLOP/s dense bf16,
half of it for float32 (TF32), 4,800 GB/s memory, 450 GB/s NVLink one way; between machines of 8 a 400 Gbit/s adapter a device.
What a GPU's compiler does otherwise is not seen: it fuses more, and scatters sums (reduce-scatter) where a CPU's program reduces all of them.
And a CPU's program of --dtype=bfloat16 keeps and sends most of what is bfloat16 in float32: activations, gathered matrices and summed gradients take
up to twice the bytes that a GPU's take.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import sys
import time

from launch import app
from profiling import workload
from profiling.workload import CONFIGS, Workload
from rgjax.config import ModelConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("vocab_size", 8000, "Tokens of the vocabulary, without --dataset.", lower_bound=8)
flags.DEFINE_integer("devices", 8, "Devices that --mesh=auto and a size of -1 share out.", lower_bound=1)
flags.DEFINE_float("flops", 0.0, "TFLOP/s of a device; 0 takes 989 for --dtype=bfloat16 and 494.5 for float32.", lower_bound=0.0)
flags.DEFINE_float("memory_bandwidth", 4800.0, "GB/s of a device's memory.", lower_bound=1e-3)
flags.DEFINE_float("bandwidth", 450.0, "GB/s that a device sends to others of its machine.", lower_bound=1e-3)
flags.DEFINE_float("network", 50.0, "GB/s that a device sends to another machine.", lower_bound=1e-3)
flags.DEFINE_integer("devices_per_node", 8, "Devices of one machine.", lower_bound=1)
flags.DEFINE_float("memory", 131.3, "GiB of a device (141 GB); meshes that need more are not recommended.", lower_bound=1e-3)

WIDENED = "note: compiled for CPUs, which keep and send in float32 what GPUs do in bfloat16: there, memory and bytes are as little as half of these"
SHOWN = 3  # meshes of --mesh=auto whose collectives are printed; the last line holds all
PEAKS = {"bfloat16": 989.0, "float32": 494.5}  # TFLOP/s, dense, NVIDIA H200 data sheet


def wanted(text: str, sections: dict) -> list[str]:
    """The meshes to look at; raises UserError where none is possible."""
    from rgjax.parallel import mesh as mesh_lib

    if text != "auto":
        parts = [part for part in text.split(";") if part]
        app.require(mesh=parts)
        for part in parts:
            sizes, devices = mesh_lib.parse(part), app.FLAGS.devices
            if -1 in sizes.values() and (list(sizes.values()).count(-1) > 1 or devices % -math.prod(sizes.values())):
                raise UserError(f"--mesh={part} does not share out --devices={devices}; give one axis -1 at most, and sizes that divide them.")
        return parts
    found = [m for m in every_mesh(app.FLAGS.devices, app.FLAGS.devices_per_node, sections["model"]) if not refused(m, sections)]
    if not found:
        raise UserError(f"--batch_size={sections['input'].batch_size} divides over no mesh of {app.FLAGS.devices} devices; take a multiple of them.")
    return found


def every_mesh(devices: int, node: int, model) -> list[str]:
    """All meshes of so many devices; 'tensor' stays within a machine and divides the heads."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    found = []
    for fsdp, tensor in itertools.product(divisors, divisors):
        whole = devices % (fsdp * tensor) == 0 and node % tensor == 0
        if whole and model.heads % tensor == 0 and (model.kv_heads or model.heads) % tensor == 0:
            sizes = {"data": devices // fsdp // tensor, "fsdp": fsdp, "tensor": tensor}
            found.append(",".join(f"{name}:{n}" for name, n in sizes.items() if n > 1) or "data:1")
    return found


def refused(mesh: str, sections: dict) -> bool:
    """Whether the batch does not divide over a mesh."""
    from rgjax.parallel import mesh as mesh_lib

    sizes = mesh_lib.parse(mesh)
    return bool(sections["input"].batch_size % (sizes["data"] * sizes["fsdp"] * sections["optimizer"].accumulate))


def divisible(meshes: list[str], sections: dict) -> int:
    """The rows of a batch that all meshes can share out: --batch_size, or the next number above it that divides."""
    from rgjax.parallel import mesh as mesh_lib

    devices = [app.FLAGS.devices if -1 in of.values() else of["data"] * of["fsdp"] for of in map(mesh_lib.parse, meshes)]
    rows, among = sections["input"].batch_size, math.lcm(*devices) * sections["optimizer"].accumulate
    if rows % among:
        print(f"note: --batch_size={rows} does not divide by {among}; planned with {-(-rows // among) * among} rows a step", file=sys.stderr)
    return -(-rows // among) * among


def pretend(meshes: list[str]) -> None:
    """Makes as many CPU devices as the largest mesh has; JAX has begun to compute nowhere before."""
    import jax

    from rgjax.parallel import mesh as mesh_lib

    sizes = [mesh_lib.parse(mesh).values() for mesh in meshes]
    os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(app.FLAGS.devices if -1 in of else math.prod(of) for of in sizes))


def planned(sections: dict, mesh: str) -> dict:
    """Memory, collectives and predicted seconds of one mesh."""
    from profiling import collectives, costs
    from profiling.program import Program

    work = Workload.open(sections | {"train": dataclasses.replace(sections["train"], mesh=mesh)}, app.FLAGS.vocab_size)
    began = time.perf_counter()
    compiled = work.compiled()
    compile_seconds, program = time.perf_counter() - began, Program.of(compiled, work.pieces())
    found = list(collectives.found(program, work.mesh.size))
    f = app.FLAGS
    peak = (f.flops or PEAKS[sections["model"].dtype]) * 1e12
    compute = costs.seconds(program, peak, f.memory_bandwidth * 1e9)
    speed = lambda c: (f.bandwidth if len({d // f.devices_per_node for d in c.group}) == 1 else f.network) * 1e9
    communication = sum(c.times * c.sent / speed(c) for c in found)
    return {
        "mesh": mesh, "devices": work.mesh.size, "memory": workload.memory_of(compiled),
        "flops": sum(c.flops for c in costs.by_module(program).values()),
        "collectives": collectives.by_kind(found, dict(work.mesh.shape)),
        "compute_seconds": compute, "communication_seconds": communication,
        "step_seconds": compute + communication, "step_seconds_overlapped": max(compute, communication),
        "compile_seconds": compile_seconds, "unknown_loops": len(program.unknown_loops),
    }  # fmt: skip


def table(found: list[dict], shown: int) -> str:
    """The meshes side by side, and the collectives of the first `shown`."""
    lines = [f"{'mesh':<26} {'GiB/device':>10} {'TFLOP/device':>13} {'compute ms':>11} {'collectives ms':>15} {'step ms':>9} {'overlapped':>11}"]
    for r in found:
        times = f"{r['compute_seconds'] * 1e3:>11.3f} {r['communication_seconds'] * 1e3:>15.3f} {r['step_seconds'] * 1e3:>9.3f}"
        sizes = f"{r['memory']['peak'] / 2**30:>10.3f} {r['flops'] / 1e12:>13.4f}"
        lines.append(f"{r['mesh']:<26} {sizes} {times} {r['step_seconds_overlapped'] * 1e3:>11.3f}{'' if r['fits'] else '   does not fit'}")
    for r in found[:shown]:
        lines += ["", f"{r['mesh']}, collectives of a step:"]
        lines += [f"  {'kind':<19} {'along':<18} {'count':>7} {'MB':>12} {'MB sent/device':>15}  mostly from"] if r["collectives"] else ["  none"]
        for c in r["collectives"]:
            sizes = f"{c['count']:>7,.0f} {c['bytes'] / 1e6:>12,.3f} {c['sent'] / 1e6:>15,.3f}"
            lines.append(f"  {c['kind']:<19} {c['axes']:<18} {sizes}  {', '.join(c['sources'])}")
    return "\n".join(lines)


def main() -> dict:
    """Compiles for each mesh, prints a table and returns the summary that is printed last."""
    sections = workload.sections()
    text = sections["train"].mesh or "data:1"
    if app.given(ModelConfig).isdisjoint({"attention"}):
        sections["model"] = dataclasses.replace(sections["model"], attention="plain")  # as 'auto' chooses on several devices
    meshes = wanted(text, sections)
    sections["input"] = dataclasses.replace(sections["input"], batch_size=divisible(meshes, sections))
    pretend(meshes)
    found = []
    with app.progress("compiled") as show:
        for n, mesh in enumerate(meshes):
            show(n, len(meshes))
            found.append(planned(sections, mesh))
            found[-1]["fits"] = found[-1]["memory"]["peak"] <= app.FLAGS.memory * 2**30
        show(len(meshes), len(meshes))
    found.sort(key=lambda r: (not r["fits"], r["step_seconds"]))
    print(table(found, SHOWN if text == "auto" else len(found)))
    if sections["model"].dtype == "bfloat16":
        print(f"\n{WIDENED}")
    best = found[0]["mesh"] if found[0]["fits"] else None
    if len(found) > 1:
        print(f"\nbest: {best}" if best else f"\nnone fits {app.FLAGS.memory:g} GiB; take more devices, or a smaller --batch_size")
    assumed = {name: getattr(app.FLAGS, name) for name in ("memory_bandwidth", "bandwidth", "network", "devices_per_node", "memory")}
    assumed["flops"] = app.FLAGS.flops or PEAKS[sections["model"].dtype]
    told = {"best": best, "meshes": found, "assumed": assumed, "batch_size": sections["input"].batch_size}
    return told | {"device": "none: compiled, never run", "versions": workload.facts()["versions"]}


if __name__ == "__main__":
    app.define(*CONFIGS)
    app.run(main, __doc__)
