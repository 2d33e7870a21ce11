"""A training step of a model of behaviour beside a plain PyTorch SASRec of the same shape, on the same windows of events.

    python -m profiling.behaviour_step                                     (histories as long as MovieLens 1M's, 3,416 items)
    python -m profiling.behaviour_step --source=FOLDER --layout=ml1m       (real ones)

Both are SASRec (Kang & McAuley 2018): learned positions, layer norms before each layer, a ReLU feed-forward as wide as the model, the item
table as output, with the same weights and no dropout, trained by AdamW on the full softmax. Ours reads packed rows of --row_length events
and multiplies the output matrix in chunks; the peer pads each window to --window, as its repositories do, and holds all logits. Both must
count the same events with the same loss before anything is timed. A round is one pass over all batches; the rate is events with a loss a second.
"""

from __future__ import annotations

import math

import numpy as np

from launch import app
from profiling import bench
from rgjax.config import BehaviourConfig, InputConfig, ModelConfig, OptimizerConfig, ShopConfig
from rgjax.errors import UserError

flags = app.flags
flags.DEFINE_integer("layers", 2, "Layers.", lower_bound=1)
flags.DEFINE_integer("width", 128, "Width.", lower_bound=8)
flags.DEFINE_integer("heads", 2, "Heads.", lower_bound=1)
flags.DEFINE_integer("window", 200, "Most events of a window, to which the peer pads.", lower_bound=2)
flags.DEFINE_integer("row_length", 400, "Events in a packed row of ours.", lower_bound=2)
flags.DEFINE_integer("batch_size", 32, "Rows in a step of ours; the peer gets as many windows a step as ours has on average.", lower_bound=1)
flags.DEFINE_integer("batches", 4, "Steps of ours in a round.", lower_bound=1)
flags.DEFINE_integer("items", 3416, "Items, without --source.", lower_bound=2)
flags.DEFINE_bool("compile_peer", False, "Also time the peer compiled by torch.compile, and compare with that.")

OURS, PEER, COMPILED = "ours", "peer", "peer, compiled"
USUAL = OptimizerConfig(learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.1, clip=1.0)


def interactions():
    """The shop of --source, or 1,000 users with histories as long as MovieLens 1M's (median 96, mean 165, log-normal) and Zipf's items."""
    from rgjax.data import shop_folder
    from rgjax.data.interactions import Catalogue, build

    if app.FLAGS.source:
        return shop_folder.open_any("", app.FLAGS.layout, app.FLAGS.source).interactions
    rng, items = np.random.default_rng(0), app.FLAGS.items
    lengths = np.clip(np.exp(rng.normal(math.log(96), 1.04, 1000)), 18, 2300).astype(int)
    user = np.repeat(np.arange(1000), lengths)
    share = 1 / (10 + np.arange(items))
    catalogue = Catalogue([str(i) for i in range(items)], [""] * items, [{}] * items)
    return build([str(u) for u in range(1000)], catalogue, user, rng.choice(items, len(user), p=share / share.sum()), np.arange(len(user)))


def our_side(data):
    """(a step on a batch, batches, the same on the device, the first weights as NumPy arrays, and the loss of weights and a batch)."""
    import jax

    from rgjax.parallel import mesh as mesh_lib
    from rgjax.parallel import sharding
    from rgjax.tasks.shop.behaviour import BehaviourTask
    from rgjax.train import optimizer, state, step

    f, mesh = app.FLAGS, mesh_lib.make("data:1")
    model = ModelConfig(
        layers=f.layers, width=f.width, heads=f.heads, mlp_width=f.width, activation="relu", positions="learned", norm="layernorm", norm_eps=1e-5,
        bias=True, dropout=0.0, max_positions=f.window, scan=False,
    )  # fmt: skip
    inputs = InputConfig(batch_size=f.batch_size, row_length=f.row_length)
    task = BehaviourTask(data, ShopConfig(), BehaviourConfig(window=f.window), inputs, model)
    tx = optimizer.make(USUAL, 1000)
    held = [state.create(task.factory, tx, mesh, False, 0)[0]]
    weights = jax.device_get(held[0].params)
    run, stream = step.make_train_step(task.factory, task.loss(0.0), tx, USUAL), task.training_data(0)
    batches = [next(stream) for _ in range(f.batches)]
    stream.close()

    def train(batch):
        held[0], metrics = run(held[0], step.NOTHING_FIXED, batch)
        return metrics["loss"]

    evaluate = jax.jit(lambda params, batch: task.loss(0.0)(task.factory.model(params), batch, None))
    return train, batches, [sharding.put(batch, mesh, 1) for batch in batches], weights, evaluate


def windows_of(batches: list[dict]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(items, next items) of every window in our batches."""
    found = []
    for batch in batches:
        for row, segments in enumerate(batch["segment_ids"]):
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                found.append((batch["tokens"][row][here], batch["targets"][row][here]))
    return found


def peer_batches(windows: list, steps: int) -> list[tuple]:
    """The windows padded at their end to --window (target -100), in `steps` batches."""
    import torch

    length, made = app.FLAGS.window, []
    for part in np.array_split(np.arange(len(windows)), steps):
        items, targets = np.zeros((len(part), length), np.int64), np.full((len(part), length), -100)
        for row, i in enumerate(part):
            count = len(windows[i][0])
            items[row, :count], targets[row, :count] = windows[i]
        made.append((torch.as_tensor(items).to(bench.torch_device()), torch.as_tensor(targets).to(bench.torch_device())))
    return made


def sasrec(weights: dict):
    """SASRec as a torch module with our weights; called with items and targets [B, T] it gives the mean loss."""
    import torch
    from torch import nn
    from torch.nn import functional

    f, blocks = app.FLAGS, weights["decoder"]["blocks"]
    put = lambda parameter, array: parameter.data.copy_(torch.as_tensor(np.array(array)))

    class Block(nn.Module):
        def __init__(self, n: int):
            super().__init__()
            self.first, self.second = nn.LayerNorm(f.width), nn.LayerNorm(f.width)
            self.qkv, self.out = nn.Linear(f.width, 3 * f.width), nn.Linear(f.width, f.width)
            self.up, self.down = nn.Linear(f.width, f.width), nn.Linear(f.width, f.width)
            own, mlp = blocks["attention"], blocks["mlp"]
            flat = lambda name: own[name][n].reshape(f.width, f.width)
            put(self.qkv.weight, np.concatenate([flat(name).T for name in ("wq", "wk", "wv")]))
            put(self.qkv.bias, np.concatenate([own[name][n].reshape(-1) for name in ("bq", "bk", "bv")]))
            put(self.out.weight, flat("wo").T), put(self.out.bias, own["bo"][n])
            put(self.up.weight, mlp["w_in"][n].T), put(self.up.bias, mlp["b_in"][n])
            put(self.down.weight, mlp["w_out"][n].T), put(self.down.bias, mlp["b_out"][n])

        def forward(self, x):
            b, t, d = x.shape
            heads = lambda y: y.view(b, t, f.heads, d // f.heads).transpose(1, 2)
            q, k, v = map(heads, self.qkv(self.first(x)).chunk(3, dim=-1))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
            return x + self.down(functional.relu(self.up(self.second(x))))

    class SASRec(nn.Module):
        def __init__(self):
            super().__init__()
            table, places = weights["embedding"]["tokens"], weights["embedding"]["places"]
            self.items, self.places = nn.Embedding(*table.shape), nn.Embedding(*places.shape)
            put(self.items.weight, table), put(self.places.weight, places)
            self.blocks, self.norm = nn.ModuleList(Block(n) for n in range(f.layers)), nn.LayerNorm(f.width)

        def forward(self, items, targets):
            x = self.items(items) + self.places.weight[: items.shape[1]]
            for block in self.blocks:
                x = block(x)
            logits = functional.linear(self.norm(x), self.items.weight)
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)

    return SASRec().to(bench.torch_device())


def peer_side(weights: dict, compiled: bool = False):
    """`step(items, targets) -> loss` with fused AdamW, the same clipping and decay."""
    import torch

    model = sasrec(weights).train()
    run = torch.compile(model) if compiled else model
    adamw = torch.optim.AdamW(
        model.parameters(), lr=USUAL.learning_rate, betas=(USUAL.beta1, USUAL.beta2), eps=1e-8, weight_decay=USUAL.weight_decay, fused=True
    )

    def train(batch):
        adamw.zero_grad(set_to_none=True)
        loss = run(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), USUAL.clip)
        adamw.step()
        return loss.detach()

    return train, model


def check(evaluate, batches: list[dict], weights: dict, peer_data: list, model) -> float:
    """The mean loss over all events before any step; raises UserError unless both sides have the same, over as many events."""
    import torch

    total = [0.0, 0.0]
    for batch in batches:
        sums = evaluate(weights, batch)
        total = [total[0] + float(sums["nll"]), total[1] + float(sums["tokens"])]
    with torch.no_grad():
        counts = [int((targets >= 0).sum()) for _, targets in peer_data]
        theirs = sum(float(model(*batch)) * n for batch, n in zip(peer_data, counts, strict=True)) / sum(counts)
    ours = total[0] / total[1]
    if sum(counts) != int(total[1]) or abs(ours - theirs) > 1e-4 * ours:
        raise UserError(f"The sides differ: {int(total[1])} events with loss {ours:.6f}, and {sum(counts)} with {theirs:.6f}; no times are told.")
    return ours


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need("torch")
    bench.same_precision()
    if app.FLAGS.row_length < app.FLAGS.window:
        raise UserError(f"--row_length={app.FLAGS.row_length} is below --window={app.FLAGS.window}; raise it.")
    run, batches, placed, weights, evaluate = our_side(interactions())
    windows = windows_of(batches)
    steps = len(batches)
    theirs = peer_batches(windows, steps)
    train, model = peer_side(weights)
    loss = check(evaluate, batches, weights, theirs, model)
    sides = {OURS: lambda: [run(batch) for batch in placed][-1], PEER: lambda: [train(batch) for batch in theirs][-1]}
    if app.FLAGS.compile_peer:
        fast, _ = peer_side(weights, compiled=True)
        sides[COMPILED] = lambda: [fast(batch) for batch in theirs][-1]
    found = bench.take_turns(sides, app.FLAGS.rounds)
    events = sum(len(items) for items, _ in windows)
    print(bench.table(found, events, "events"))
    filled = events / sum(batch["tokens"].size for batch in batches), events / (len(windows) * app.FLAGS.window)
    print(f"{len(windows)} windows in {steps} steps; slots filled: ours {filled[0]:.1%}, peer {filled[1]:.1%}; loss {loss:.5f}")
    names = ("layers", "width", "heads", "window", "row_length", "batch_size", "batches")
    return bench.summary(
        found, COMPILED if app.FLAGS.compile_peer else PEER, loss=loss, events=events, filled=filled, shape={n: getattr(app.FLAGS, n) for n in names}
    )


if __name__ == "__main__":
    app.define(ShopConfig)
    app.run(main, __doc__)
