"""Seconds and peak memory of loading a Hugging Face folder onto a mesh.

    python -m profiling.load --parameters=1.5B

Writes a Llama-shaped folder of random weights in shards to a temporary folder, once in float32 and once in bfloat16, and reads each with
`Pretrained.params` in a process of its own, onto eight fake CPU devices (fsdp:8). Parameters are float32, so they are as large as the
float32 folder and twice as large as the bfloat16 one: the ratio to watch is `resident_to_parameters`.

Two peaks are told, both less what the process held before loading: resident memory (VmHWM, in which the pages of mapped files
count although the system may drop them at any time) and anonymous memory (RssAnon, sampled every 10 ms, which it may not). Linux only.

On two shared cores, files in the page cache, 1,499,584,512 parameters: float32 folder (6.00 GB) in 17 s, peak 6.39 GB resident and 6.15
anonymous, 1.07 of the folder; bfloat16 folder (3.00 GB) in 19 s, 6.26 GB and 6.15, 1.04 of the parameters and so 2.09 of the folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import ml_dtypes
import numpy as np
from absl import app, flags
from safetensors.numpy import save_file

from profiling.resident import status

FLAGS = flags.FLAGS
flags.DEFINE_string("parameters", "1.5B", "Parameters, about: with B for thousand millions, M for millions; decides --layers.")
flags.DEFINE_integer("layers", 0, "Layers, instead of --parameters.", lower_bound=0)
flags.DEFINE_integer("width", 2048, "Width of the model; a multiple of 128.", lower_bound=128)
flags.DEFINE_integer("vocab_size", 32_000, "Rows of the embedding and output tables.", lower_bound=8)
flags.DEFINE_string("mesh", "fsdp:8", "Mesh to load onto.")
flags.DEFINE_integer("devices", 8, "Fake CPU devices.", lower_bound=1)
flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Types of the folders.")
flags.DEFINE_integer("shard_mb", 1000, "Most megabytes of a shard.", lower_bound=1)
flags.DEFINE_string("folder", "", "Where the temporary files go; empty takes the system's temporary folder.")
flags.DEFINE_string("measure", "", "Only loads this folder and prints the figures (used by the command itself).")


def shapes(width: int, layers: int, vocab: int) -> dict[str, tuple[int, ...]]:
    """The tensors of an untied Llama with heads of 64, half as many key heads, and a feed-forward of 11/4 of the width."""
    found = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,), "lm_head.weight": (vocab, width)}
    hidden = width * 11 // 4
    for i in range(layers):
        at = f"model.layers.{i}"
        found |= {f"{at}.self_attn.{n}_proj.weight": (width, width) for n in "qo"}
        found |= {f"{at}.self_attn.{n}_proj.weight": (width // 2, width) for n in "kv"}
        found |= {f"{at}.mlp.{n}_proj.weight": (hidden, width) for n in ("gate", "up")} | {f"{at}.mlp.down_proj.weight": (width, hidden)}
        found |= {f"{at}.{n}_layernorm.weight": (width,) for n in ("input", "post_attention")}
    return found


def count(tensors: dict[str, tuple[int, ...]]) -> int:
    """Parameters."""
    return sum(int(np.prod(shape)) for shape in tensors.values())


def layers_for(text: str, width: int, vocab: int) -> int:
    """The number of layers that comes nearest to '1.5B' parameters."""
    found = re.fullmatch(r"([0-9.]+)([BM])", text)
    if not found:
        raise SystemExit(f"error: --parameters={text} is not understood; write 1.5B or 300M.")
    wanted = float(found[1]) * {"B": 1e9, "M": 1e6}[found[2]]
    none, one = (count(shapes(width, n, vocab)) for n in (0, 1))
    return max(1, round((wanted - none) / (one - none)))


def write(folder: pathlib.Path, tensors: dict[str, tuple[int, ...]], layers: int, dtype: str, shard_bytes: int) -> int:
    """Writes the folder, holding one shard at a time; returns the bytes of its tensors."""
    rng, kind = np.random.default_rng(0), np.dtype(np.float32 if dtype == "float32" else ml_dtypes.bfloat16)
    width, vocab = FLAGS.width, FLAGS.vocab_size
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers,
        "intermediate_size": width * 11 // 4, "num_attention_heads": width // 64, "num_key_value_heads": width // 128, "head_dim": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 4096, "hidden_act": "silu", "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    groups: list[list[str]] = [[]]
    used = total = 0
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * kind.itemsize
        if groups[-1] and used + size > shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used, total = used + size, total + size
    places = {}
    for i, names in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        save_file({n: (rng.standard_normal(tensors[n], np.float32) * 0.02).astype(kind) for n in names}, folder / file)
        places |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))
    return total


@dataclasses.dataclass
class Watch:
    """Samples memory in a thread until stopped."""

    peaks: dict[str, int] = dataclasses.field(default_factory=status)

    def __post_init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.01):
            now = status()
            self.peaks = {name: max(value, now[name]) for name, value in self.peaks.items()}

    def stop(self) -> dict[str, int]:
        """The highest values seen."""
        self._stop.set()
        self._thread.join()
        return self.peaks


def measure(folder: str) -> dict:
    """Loads the folder in this process; returns the figures."""
    import jax

    from rgjax.hf.load import Pretrained
    from rgjax.models.build import ModelFactory
    from rgjax.parallel import mesh as mesh_lib

    mesh = mesh_lib.make(FLAGS.mesh)
    source = Pretrained.open(folder)
    factory = ModelFactory(source.own_config(), source.folder.config["vocab_size"])
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, watch, began = status(), Watch(), time.monotonic()
    params = jax.block_until_ready(source.params(factory, mesh))
    seconds, after, peaks = time.monotonic() - began, status(), watch.stop()
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return {
        "parameters": factory.count(), "parameters_bytes": held, "seconds": round(seconds, 1), "devices": mesh.size,
        "peak_resident": after["VmHWM"] - before["VmRSS"], "peak_anonymous": peaks["RssAnon"] - before["RssAnon"],
        "peak_mapped": peaks["RssFile"] - before["RssFile"], "held_after_anonymous": after["RssAnon"] - before["RssAnon"],
    }  # fmt: skip


def main(argv: list[str]) -> None:
    """Prints one line a folder, and the figures as one JSON object on the last line."""
    if FLAGS.measure:
        print(json.dumps(measure(FLAGS.measure)))
        return
    layers = FLAGS.layers or layers_for(FLAGS.parameters, FLAGS.width, FLAGS.vocab_size)
    tensors, rows = shapes(FLAGS.width, layers, FLAGS.vocab_size), []
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={FLAGS.devices}"}
    for dtype in FLAGS.dtypes:
        with tempfile.TemporaryDirectory(dir=FLAGS.folder or None) as temporary:
            size = write(pathlib.Path(temporary), tensors, layers, dtype, FLAGS.shard_mb * 1_000_000)
            command = [sys.executable, "-m", "profiling.load", f"--measure={temporary}", f"--mesh={FLAGS.mesh}"]
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        row = {"dtype": dtype, "folder_bytes": size} | json.loads(done.stdout.splitlines()[-1])
        for kind in ("resident", "anonymous"):
            row |= {f"{kind}_to_folder": round(row[f"peak_{kind}"] / size, 3)}
            row |= {f"{kind}_to_parameters": round(row[f"peak_{kind}"] / row["parameters_bytes"], 3)}
        rows.append(row)
        peaks = ", ".join(f"{kind} {row[f'peak_{kind}'] / 1e9:.2f}" for kind in ("resident", "anonymous"))
        print(
            f"{dtype}: folder {size / 1e9:.2f} GB, parameters {row['parameters_bytes'] / 1e9:.2f} GB, {row['seconds']} s; peak GB: {peaks}; "
            f"resident over parameters {row['resident_to_parameters']}, over folder {row['resident_to_folder']}",
            flush=True,
        )
    print(json.dumps({"layers": layers, "width": FLAGS.width, "mesh": FLAGS.mesh, "cores": os.cpu_count(), "folders": rows}))


if __name__ == "__main__":
    app.run(main)
