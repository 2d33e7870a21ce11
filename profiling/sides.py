"""The two sides of the comparisons with transformers: a GPT-2 of the flags' shape with the same weights in either, and a training step.

transformers initialises and saves the model; our loader reads its folder. Dropout is 0 on both sides, so that losses can be compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from launch import app
from profiling.bench import torch_device
from rgjax.config import OptimizerConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("layers", 6, "Layers.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Width of the model; the feed-forward is 4 times as wide.", lower_bound=8)
flags.DEFINE_integer("heads", 8, "Heads.", lower_bound=1)
flags.DEFINE_integer("vocab_size", 32_000, "Rows of the tied embedding table.", lower_bound=8)
flags.DEFINE_integer("max_positions", 512, "Learned positions: the longest sequence.", lower_bound=8)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What is computed in (torch: autocast); weights stay float32.")
flags.DEFINE_bool("scan", False, "Ours: scan over stacked layers instead of unrolling them.")
flags.DEFINE_enum("remat", "none", ["none", "dots", "full"], "Ours: what the backward pass recomputes.")

USUAL = OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.1, clip=1.0)
SHAPE = ("layers", "width", "heads", "max_positions", "vocab_size", "dtype")
OWN = ("layers", "width", "heads", "max_positions", "dtype", "scan", "remat")  # of ModelConfig, defined here


def shape(*more: str) -> dict:
    """The flags that say what was measured."""
    return {name: getattr(app.FLAGS, name) for name in (*SHAPE, *more)}


def write(folder: str | pathlib.Path, spread: float = 0.02) -> None:
    """A random GPT-2 of the flags' shape, whose matrices have the standard deviation `spread`, as transformers saves it.

    Raises UserError where the heads do not divide the width.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    f = app.FLAGS
    if f.width % f.heads:
        raise UserError(f"--width={f.width} does not divide among --heads={f.heads}; take a multiple of the heads.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=f.vocab_size, n_embd=f.width, n_layer=f.layers, n_head=f.heads, n_positions=f.max_positions, initializer_range=spread,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.device(torch_device()):  # a CPU would draw a billion numbers for a minute
        GPT2LMHeadModel(config).save_pretrained(folder)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def our_model(folder: str | pathlib.Path):
    """(factory, parameters) of the folder, computed as the flags say."""
    from rgjax.hf.load import Pretrained
    from rgjax.models.build import ModelFactory
    from rgjax.parallel import mesh as mesh_lib

    f, source = app.FLAGS, Pretrained.open(str(folder))
    config = dataclasses.replace(source.own_config(), dropout=0.0, dtype=f.dtype, scan=f.scan, remat=f.remat)
    factory = ModelFactory(config, config.embeddings)
    return factory, source.params(factory, mesh_lib.make("data:1"))


def peer_model(folder: str | pathlib.Path):
    """The folder's model in torch, where JAX computes."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch_device())


class OurTraining:
    """`training(batch) -> loss` takes a step as launch.train does and changes `state`; a batch is one that `placed` made.

    `most` target tokens are in a row, as `tasks.reason.sums` has it.
    """

    def __init__(self, folder: str | pathlib.Path, most: int = 0):
        from rgjax.parallel import mesh as mesh_lib
        from rgjax.tasks import reason
        from rgjax.train import optimizer, state, step

        factory, params = our_model(folder)
        tx, self._fixed = optimizer.make(USUAL, 1000), step.NOTHING_FIXED
        self._step = step.make_train_step(factory, functools.partial(reason.sums, most=most), tx, USUAL)
        self.state = state.create(factory, tx, mesh_lib.make("data:1"), False, 0, params)[0]

    def __call__(self, batch: dict):
        self.state, metrics = self._step(self.state, self._fixed, batch)
        return metrics["loss"]


def placed(batch: dict[str, np.ndarray]) -> dict:
    """A batch of the pipeline on the device, as one micro-batch."""
    from rgjax.parallel import mesh as mesh_lib
    from rgjax.parallel import sharding

    return sharding.put(batch, mesh_lib.make("data:1"), 1)


def autocast():
    """torch's context for --dtype."""
    import torch

    return torch.autocast(torch_device(), torch.bfloat16) if app.FLAGS.dtype == "bfloat16" else contextlib.nullcontext()


def peer_training(folder: str | pathlib.Path, compiled: bool = False, dynamic: bool | None = None) -> Callable[[dict], object]:
    """`step(batch) -> loss` in torch with the same fused AdamW, decay and clipping; a batch is what the model is called with.

    `compiled` by torch.compile, for shapes that vary if `dynamic`.
    """
    import torch

    model = peer_model(folder).train()
    run = torch.compile(model, dynamic=dynamic) if compiled else model
    decayed = {name for name, p in model.named_parameters() if p.ndim > 1 and "wpe" not in name}
    groups = [[p for name, p in model.named_parameters() if (name in decayed) == keep] for keep in (True, False)]
    adamw = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": USUAL.weight_decay}, {"params": groups[1], "weight_decay": 0.0}],
        lr=USUAL.learning_rate, betas=(USUAL.beta1, USUAL.beta2), eps=1e-8, fused=True,
    )  # fmt: skip

    def call(batch: dict):
        adamw.zero_grad(set_to_none=True)
        with autocast():
            loss = run(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), USUAL.clip)
        adamw.step()
        return loss.detach()

    return call
