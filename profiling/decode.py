"""Tokens written a second beside `generate` of transformers: greedy, drawn or with beams, in one batch or for a file of ragged texts.

    python -m profiling.decode                            (16 prompts of 64 tokens, 64 new ones each, the GPT-2 of profiling.train_step)
    python -m profiling.decode --beams=4
    python -m profiling.decode --top_p=0.95               (drawn; both sides write greedily first, and must write the same)
    python -m profiling.decode --ragged --inputs=128

Both sides have the same random weights, wide enough that no two tokens are nearly as likely, and must write the same tokens; the share
that is the same is told, and in float32 nothing is timed below 99 %. Ours is the writer of launch.generate, from lists of ids to lists
of ids; so is the peer, which runs with its default cache and, where that works, with a static one.

With --ragged prompts have between 1/8 and all of --prompt_length tokens, and texts end at tokens that are chosen, among those that the
model writes, so that the mean text is half of --new_tokens: some end early, some never. The peer's batches are sorted by prompt length.
"""

from __future__ import annotations

import collections
import functools
import sys
import tempfile

import numpy as np

from launch import app
from profiling import bench, sides
from rgjax.errors import UserError, first_line

flags = app.flags
flags.DEFINE_integer("rows", 16, "Rows decoded together.", lower_bound=1)
flags.DEFINE_integer("prompt_length", 64, "Tokens of a prompt (--ragged: of the longest).", lower_bound=1)
flags.DEFINE_integer("new_tokens", 64, "Most tokens of a text.", lower_bound=1)
flags.DEFINE_integer("beams", 1, "Beams; 1 is greedy.", lower_bound=1)
flags.DEFINE_float("top_p", 1.0, "Below 1, texts are drawn from the likeliest tokens with so much mass.", lower_bound=0.01, upper_bound=1.0)
flags.DEFINE_bool("ragged", False, "Prompts and texts of many lengths.")
flags.DEFINE_integer("inputs", 128, "Prompts with --ragged; else as many as --rows.", lower_bound=1)
flags.DEFINE_bool("static_peer", True, "Also time the peer with a static cache (not with --ragged).")

PAD, EOS, BOS = 0, 1, 2  # ids, as sides.write says
SPREAD = 0.1  # of the random weights
PEER, STATIC = "peer", "peer, static cache"
REQUIRED = 0.99  # of the tokens, in float32


def prompts() -> list[list[int]]:
    """Random prompts of ids that are no special tokens."""
    f, rng = app.FLAGS, np.random.default_rng(0)
    if f.prompt_length + f.new_tokens > f.max_positions:
        raise UserError(f"--prompt_length={f.prompt_length} and --new_tokens={f.new_tokens} exceed --max_positions={f.max_positions}; raise it.")
    sizes = rng.integers(max(1, f.prompt_length // 8), f.prompt_length + 1, f.inputs) if f.ragged else [f.prompt_length] * f.rows
    return [rng.integers(3, f.vocab_size, n).tolist() for n in sizes]


def stand_in():
    """A tokenizer of as many words as the model has tokens: nothing is turned into text here."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    from rgjax.data import tokenizer

    names = [tokenizer.PAD, tokenizer.EOS, tokenizer.BOS, *(f"w{i}" for i in range(3, app.FLAGS.vocab_size))]
    return tokenizer.Tokenizer(Backend(models.WordLevel({name: i for i, name in enumerate(names)}, tokenizer.PAD)))


def our_writer(folder: str, ends: tuple[int, ...], top_p: float = 1.0):
    """`write(prompts) -> ids of each text`, the end token included where it came; drawn where `top_p` is below 1."""
    import jax

    from rgjax.config import DecodeConfig
    from rgjax.data.template import Rendered
    from rgjax.decode.writer import Writer

    f, (factory, params) = app.FLAGS, sides.our_model(folder)
    if f.dtype == "bfloat16":
        params = jax.tree.map(lambda a: a.astype("bfloat16"), params)
    method = {"method": "beam", "beams": f.beams} if f.beams > 1 else {"method": "sample", "top_p": top_p} if top_p < 1 else {}
    config = DecodeConfig(max_new_tokens=f.new_tokens, decode_batch=f.rows * f.beams, **method)
    writer = Writer(factory, params, stand_in(), config, ends, (PAD, BOS))

    def write(given: list[list[int]]) -> list[list[int]]:
        found = [h[0] for h in writer.write([Rendered(ids, [], {}, False) for ids in given])]
        return [h.ids + [-1] * h.ended for h in found]

    return write


def peer_writer(folder: str, ends: tuple[int, ...], cache: str | None, top_p: float = 1.0):
    """As `our_writer`, by `generate`; `cache` is its cache_implementation."""
    import torch

    f, model = app.FLAGS, sides.peer_model(folder).eval()
    if f.dtype == "bfloat16":
        model = model.to(torch.bfloat16)
    options = {"max_new_tokens": f.new_tokens, "do_sample": False, "num_beams": f.beams, "eos_token_id": list(ends), "pad_token_id": PAD}
    options |= {"cache_implementation": cache} if cache else {}
    options |= {"do_sample": True, "top_p": top_p, "top_k": 0} if top_p < 1 else {}

    def batch(given: list[list[int]]) -> list[list[int]]:
        width = max(map(len, given))
        ids = torch.tensor([[PAD] * (width - len(g)) + g for g in given], device=model.device)
        mask = torch.tensor([[0] * (width - len(g)) + [1] * len(g) for g in given], device=model.device)
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, **options)
        return [cut(row, ends) for row in out[:, width:].tolist()]

    def write(given: list[list[int]]) -> list[list[int]]:
        order, found = sorted(range(len(given)), key=lambda i: len(given[i])), {}
        for at in range(0, len(order), f.rows):
            members = order[at : at + f.rows]
            found |= dict(zip(members, batch([given[i] for i in members]), strict=True))
        return [found[i] for i in range(len(given))]

    return write


def writers(folder: str, ends: tuple[int, ...], peers: list[str], top_p: float = 1.0) -> dict:
    """By side: ours, and these peers'."""
    found = {name: peer_writer(folder, ends, "static" if name == STATIC else None, top_p) for name in peers}
    return {"ours": our_writer(folder, ends, top_p), **found}


def cut(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    """Ids up to the first end token, which is told as -1."""
    end = next((n for n, i in enumerate(ids) if i in ends), None)
    return ids if end is None else ids[:end] + [-1]


def chosen_ends(texts: list[list[int]], most: int) -> tuple[int, ...]:
    """The rarest tokens of `texts`, one by one, until texts that end there have a mean length of at most half of `most`."""
    counts, ends = collections.Counter(i for text in texts for i in text if i >= 3), [EOS]
    lengths = lambda: [len(cut(text, tuple(ends))) for text in texts]
    for token, _ in sorted(counts.items(), key=lambda kv: (kv[1], kv[0])):
        if 2 * sum(lengths()) <= most * len(texts):
            break
        ends.append(token)
    return tuple(ends)


def identical(texts: list[list[int]], others: list[list[int]]) -> dict[str, float]:
    """Shares of the tokens, and of whole texts, that are the same."""
    pairs = list(zip(texts, others, strict=True))
    same = sum(sum(a == b for a, b in zip(one, other, strict=False)) for one, other in pairs)
    return {"tokens": same / sum(max(len(a), len(b)) for a, b in pairs), "texts": sum(a == b for a, b in pairs) / len(pairs)}


def checked(calls: dict, first: dict) -> tuple[int, dict[str, dict]]:
    """(tokens written, what is identical to ours by peer); first calls go into `first`. Raises UserError where too little is the same."""
    texts = {}
    for name, call in list(calls.items()):
        try:
            first[name] = bench.timed(lambda call=call, name=name: texts.__setitem__(name, call()))
        except Exception as error:  # a static cache does not work for every model and device
            if name != STATIC:
                raise
            print(f"note: {STATIC} does not work here ({first_line(error)})", file=sys.stderr)
            del calls[name]
    same = {name: identical(texts["ours"], texts[name]) for name in calls if name != "ours"}
    if app.FLAGS.dtype == "float32" and (least := min(s["tokens"] for s in same.values())) < REQUIRED:
        raise UserError(f"The sides do not write the same: {least:.1%} of the tokens are identical; no times are told.")
    return sum(map(len, texts["ours"])), same


def main() -> dict:
    """Reads the flags, measures, prints a table, and returns the summary that is printed last."""
    bench.need()
    bench.same_precision()
    f, given, first = app.FLAGS, prompts(), {}
    if f.top_p < 1 and (f.beams > 1 or f.ragged):
        raise UserError(f"--top_p={f.top_p:g} draws texts of one length, which goes with neither --beams nor --ragged; leave one out.")
    with tempfile.TemporaryDirectory() as folder:
        sides.write(folder, SPREAD)
        ends = chosen_ends(our_writer(folder, (EOS,))(given), f.new_tokens) if f.ragged else (EOS,)
        peers = [PEER, STATIC] if f.static_peer and not f.ragged else [PEER]
        calls = {name: functools.partial(write, given) for name, write in writers(folder, ends, peers).items()}
        written, same = checked(calls, first)
        if f.top_p < 1:  # all texts are as long, but for an end token by chance
            calls = {name: functools.partial(write, given) for name, write in writers(folder, ends, list(same), f.top_p).items()}
            first |= {name: bench.timed(call) for name, call in calls.items()}
        found = bench.take_turns(calls, f.rounds)
    for name in found:
        found[name] |= {"compile_seconds": first[name], "tokens_per_second": written / found[name]["seconds"]}
    peer = min(same, key=lambda name: found[name]["seconds"])
    print(bench.table(found, written, "new tokens"))
    for name, share in same.items():
        print(f"{name}: {share['tokens']:.2%} of the tokens and {share['texts']:.1%} of the texts as ours")
    shape = sides.shape("rows", "prompt_length", "new_tokens", "beams", "top_p", "ragged", "inputs", "precision")
    return bench.summary(found, peer, identical=same, new_tokens=written, inputs=len(given), ends=len(ends), shape=shape)


if __name__ == "__main__":
    app.run(main, __doc__)
