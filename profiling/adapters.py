"""Steps of fine-tuning, of everything and of adapters, beside transformers with PEFT in torch.

    python -m profiling.adapters                                  (a Llama-shaped decoder of 30M parameters, 8 rows of 256 tokens)
    python -m profiling.adapters --base=FOLDER --rows=4 --length=512

Both sides take the same float32 weights, batch and AdamW (no decay, no clipping, constant rate), without dropout; LoRA lies on all
matrices of the layers and begins with the same values. First their losses over three steps are compared, so that equal work is
timed. Then they take turns, step by step, so that a machine's load meets both; first calls (compilation, warm-up) are apart and medians
are printed beside the fastest steps, which a busy machine disturbs least. torch runs as PEFT users run it, without torch.compile.
Our other methods follow, taking turns among themselves. Needs torch, transformers and peft.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from launch import app
from profiling.bench import arrays, need, take_turns, torch_device, versions
from rgjax.config import AdapterConfig, OptimizerConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_string("base", "", "Hugging Face folder of a decoder to time; empty makes a Llama of the shape below.")
flags.DEFINE_integer("layers", 8, "Layers.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Width of the model; the feed-forward is 11/4 of it.", lower_bound=16)
flags.DEFINE_integer("heads", 8, "Heads.", lower_bound=1)
flags.DEFINE_integer("vocab_size", 8000, "Rows of the tied embedding table.", lower_bound=8)
flags.DEFINE_integer("rows", 8, "Rows of the batch.", lower_bound=1)
flags.DEFINE_integer("length", 256, "Tokens of a row.", lower_bound=32)
flags.DEFINE_integer("rank", 8, "Rank of LoRA.", lower_bound=1)
flags.DEFINE_list("methods", "adalora,prefix,prompt,ia3,bottleneck", "Our other methods to time; empty times none.")

RATE, TIGHT, STEPS_COMPARED = 1e-4, 1e-3, 3
NEEDED = ("torch", "transformers", "peft")


@dataclasses.dataclass
class Side:
    """`step()` takes one optimizer step and returns what waits for it; `loss()` is that of the latest."""

    step: Callable[[], object]
    loss: Callable[[], float]
    trainable: int
    optimizer_bytes: Callable[[], int]


def tokens(base: pathlib.Path) -> np.ndarray:
    """The batch [rows, length] int32, of tokens that the model knows."""
    known = json.loads((base / "config.json").read_text())["vocab_size"]
    return np.random.default_rng(0).integers(1, known, (app.FLAGS.rows, app.FLAGS.length), dtype=np.int32)


def write_base(folder: pathlib.Path) -> None:
    """A random model of the flags' shape, as transformers initialises and saves it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    f = app.FLAGS
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=f.vocab_size, hidden_size=f.width, num_hidden_layers=f.layers, intermediate_size=f.width * 11 // 4,
        num_attention_heads=f.heads, num_key_value_heads=f.heads, max_position_embeddings=max(1024, f.length),
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )).save_pretrained(folder)  # fmt: skip


def peer(base: pathlib.Path, adapter: pathlib.Path | None) -> Side:
    """torch's step; with `adapter`, LoRA, whose initial values are written into that folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(torch_device())
    if adapter:
        config = LoraConfig(r=app.FLAGS.rank, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        model.save_pretrained(adapter)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0)
    batch, last = torch.as_tensor(tokens(base), dtype=torch.long, device=model.device), []

    def step():
        adamw.zero_grad(set_to_none=True)
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        adamw.step()
        last[:] = [loss.detach()]
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    held = lambda: sum(v.nbytes for state in adamw.state.values() for v in state.values() if isinstance(v, torch.Tensor))
    return Side(step, lambda: float(last[0]), sum(p.numel() for p in trained), held)


def ours(base: pathlib.Path, config: AdapterConfig, values: pathlib.Path | None = None) -> Side:
    """Our step, of everything or of an adapter, which begins with the `values` of a PEFT folder where one is given."""
    import jax
    from jax import numpy as jnp

    from rgjax import trees
    from rgjax.hf import adapter as adapter_lib
    from rgjax.hf.load import Pretrained
    from rgjax.models.adapted import AdaptedFactory
    from rgjax.models.build import ModelFactory
    from rgjax.parallel import mesh as mesh_lib
    from rgjax.parallel import sharding
    from rgjax.tasks import reason
    from rgjax.train import optimizer, state, step, tuning

    mesh, source = mesh_lib.make("data:1"), Pretrained.open(str(base))
    model = dataclasses.replace(source.own_config(), dropout=0.0)
    factory = ModelFactory(model, model.embeddings)
    given, how = source.params(factory, mesh), tuning.Tuning(config)
    if values:
        given["adapter"] = jax.tree.map(jnp.asarray, adapter_lib.read(values, factory, source.family)[1])
    if config.adapter != "none":
        factory = AdaptedFactory(factory, config)
    usual = OptimizerConfig(learning_rate=RATE, schedule="constant", warmup_steps=0, weight_decay=0.0, clip=0.0)
    tx = optimizer.make(usual, 1000, config)
    now, frozen = state.create(factory, tx, mesh, False, 0, given, how.trained)
    run = step.make_train_step(factory, reason.sums, tx, usual, how.penalty)
    batch, held, last = sharding.put(arrays(tokens(base)), mesh, 1), [now], []

    def call():
        held[0], metrics = run(held[0], {"weights": frozen}, batch)
        last[:] = [metrics["loss"]]
        return held[0], metrics

    count = sum(leaf.size for _, leaf in trees.flat(now.params))
    return Side(call, lambda: float(last[0]), count, lambda: sum(leaf.nbytes for leaf in jax.tree.leaves(held[0].opt_state)))


def compared(pair: dict[str, Side]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """(losses of both sides over some steps, seconds of their first steps); raises UserError unless the losses agree."""
    losses: dict[str, list[float]] = {name: [] for name in pair}
    first: dict[str, float] = {}
    for _ in range(STEPS_COMPARED):
        for name, side in pair.items():
            began = time.perf_counter()
            side.step()
            losses[name].append(side.loss())
            first.setdefault(name, time.perf_counter() - began)
    if not np.allclose(*losses.values(), rtol=TIGHT):
        raise UserError(f"The two sides do not compute the same: their losses are {losses}; no times are told.")
    return losses, first


def timed(sides: dict[str, Side]) -> dict[str, dict]:
    """Median seconds of a step, tokens a second, trained parameters and bytes of optimizer state of each side, taking turns."""
    found, work = take_turns({name: side.step for name, side in sides.items()}, app.FLAGS.rounds), app.FLAGS.rows * app.FLAGS.length
    return {
        name: {
            "seconds": found[name]["seconds"], "fastest": found[name]["fastest"],
            "tokens_per_second": work / found[name]["seconds"],
            "trainable": side.trainable, "optimizer_bytes": side.optimizer_bytes(),
        }
        for name, side in sides.items()
    }  # fmt: skip


def measured(base: pathlib.Path, place: pathlib.Path) -> dict:
    """All figures, by side and by what is trained."""
    result: dict = {"ours": {}, "peer": {}, "ratio": {}, "losses": {}, "first_step_seconds": {}}
    for what in ("full", "lora"):
        folder = place / "adapter" if what == "lora" else None
        beside = peer(base, folder)
        config = AdapterConfig(adapter="lora", rank=app.FLAGS.rank, alpha=16.0) if folder else AdapterConfig()
        pair = {"ours": ours(base, config, folder), "peer": beside}
        result["losses"][what], result["first_step_seconds"][what] = compared(pair)
        for side, figures in timed(pair).items():
            result[side][what] = figures
        one, other = result["ours"][what], result["peer"][what]
        result["ratio"][what] = {name: one[name] / other[name] for name in ("tokens_per_second", "optimizer_bytes")}
        result["ratio"][what] |= {"tokens_per_second_fastest": other["fastest"] / one["fastest"]}
        print(f"{what}: ours over peer {result['ratio'][what]}", file=sys.stderr, flush=True)
    return result | {"methods": timed({name: ours(base, AdapterConfig(adapter=name)) for name in app.FLAGS.methods})}


def table(result: dict) -> str:
    """The figures as text."""
    rows = [(f"{what}, {side}", result[side][what]) for what in result["ratio"] for side in ("ours", "peer")]
    lines = [f"{'step':<16} {'seconds':>9} {'fastest':>9} {'tokens/s':>10} {'trained':>12} {'optimizer MB':>13}"]
    for name, f in [*rows, *result["methods"].items()]:
        times = f"{f['seconds']:>9.3f} {f['fastest']:>9.3f} {f['tokens_per_second']:>10,.0f}"
        lines.append(f"{name:<16} {times} {f['trainable']:>12,} {f['optimizer_bytes'] / 1e6:>13.2f}")
    told = (f"{what} {r['tokens_per_second']:.2f} (fastest steps {r['tokens_per_second_fastest']:.2f})" for what, r in result["ratio"].items())
    return "\n".join([*lines, f"tokens/s, ours over peer: {', '.join(told)}"])


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    import jax

    need(*NEEDED)
    before = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = pathlib.Path(app.FLAGS.base or place / "base")
        if not app.FLAGS.base:
            write_base(base)
        result = measured(base, place)
    shape = {name: getattr(app.FLAGS, name) for name in ("base", "layers", "width", "heads", "vocab_size", "rows", "length", "rank", "rounds")}
    device = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores; torch on {torch_device()}"
    result |= {"versions": versions("optax", "peft"), "device": device, "load_average": [before, os.getloadavg()[0]], "shape": shape}
    print(table(result))
    return result


if __name__ == "__main__":
    app.run(main, __doc__)
