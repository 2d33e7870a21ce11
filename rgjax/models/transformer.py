"""The one transformer: a pre-norm or post-norm block, and a stack of them scanned over stacked parameters."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.nn import fused, param, positions
from rgjax.nn.attention import Attention, LayerCache, chosen
from rgjax.nn.cache import HeadCache, key_positions
from rgjax.nn.dropout import dropout
from rgjax.nn.feedforward import FeedForward
from rgjax.nn.norms import Norm
from rgjax.nn.pointwise import PointwiseBlock
from rgjax.nn.positions import at
from rgjax.nn.segments import Segments
from rgjax.parallel import sharding


class Block(nnx.Module):
    """Self-attention, optional cross-attention, feed-forward; each added to what it read, which is normalised before (or the sum after)."""

    def __init__(self, config: ModelConfig, key: jax.Array, cross: bool, causal: bool):
        keys = jax.random.split(key, 3)
        norm = lambda: Norm(config.width, config.norm, config.norm_eps)
        self.rate, self.post_norm = config.dropout, config.post_norm
        self.norm_attention, self.attention = norm(), Attention(config, keys[0], causal=causal)
        self.norm_cross = norm() if cross else None
        self.cross = Attention(config, keys[1], cross=True) if cross else None
        self.norm_mlp, self.mlp = norm(), FeedForward(config, keys[2])

    def __call__(self, x, bias, rope=None, source=None, source_bias=None, key=None, cache=None, write_at=None, prefix=None):
        """x [B, T, D] -> (x, self-attention's cache). `source` is [B, S, D] or its keys and values.

        A `source` of fewer rows than x serves as many consecutive rows each (candidates of one input, T = 1).
        """
        keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))
        before = lambda norm, x: x if self.post_norm else norm(x)
        after = lambda norm, x, y, key: norm(x + dropout(y, self.rate, key)) if self.post_norm else x + dropout(y, self.rate, key)
        y, cache = self.attention(before(self.norm_attention, x), bias, rope, cache, write_at, prefix)
        x = after(self.norm_attention, x, y, keys[0])
        if self.cross is not None:
            read = source if isinstance(source, (LayerCache, HeadCache)) else self.cross.keys_values(source)
            grouped = before(self.norm_cross, x).reshape(read.k.shape[0], -1, x.shape[-1])
            y, _ = self.cross(grouped, source_bias, cache=read)
            x = after(self.norm_cross, x, y.reshape(x.shape), keys[1])
        return after(self.norm_mlp, x, self.mlp(before(self.norm_mlp, x)), keys[2]), cache

    def answer(self, x, asked_BN, bias, rope=None, source=None, source_bias=None, key=None, cache=None, write_at=None):
        """As a call, but with outputs [B, N, D] at the positions `asked_BN` alone: of others there are only keys and values."""
        own = self.attention.keys_values(x if self.post_norm else self.norm_attention(x), rope)
        cache = own if cache is None else cache.written(own, write_at)
        bias, rope = jnp.take_along_axis(bias, asked_BN[:, None, :, None], axis=2), rope and tuple(at(table, asked_BN) for table in rope)
        return self(at(x, asked_BN), bias, rope, source, source_bias, key, cache)


def answers(block) -> bool:
    """Whether a block has `answer` and can do it: not where an adapter stands in its place or that of its attention."""
    return isinstance(block, Block) and isinstance(block.attention, Attention)


REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": jax.checkpoint_policies.nothing_saveable}


class Stack(nnx.Module):
    """`layers` blocks with stacked parameters [L, ...], relative-position biases and the final norm."""

    def __init__(self, config: ModelConfig, key: jax.Array, layers: int, cross: bool = False, causal: bool = True):
        self.config, self.depth, self.causal = config, layers, causal
        keys = jax.random.split(key, layers + 1)
        make = (lambda k: PointwiseBlock(config, k)) if config.block == "pointwise" else (lambda k: Block(config, k, cross, causal))
        self.blocks = jax.vmap(make)(keys[:layers])
        self.norm = None if config.post_norm else Norm(config.width, config.norm, config.norm_eps)
        shape, relative = (config.relative_buckets, config.heads), config.positions == "relative"
        # One assignment: NNX fixes whether an attribute holds data when it is first set.
        self.relative = param.normal(keys[layers], shape, (None, "heads"), config.width**-0.5) if relative else None

    @property
    def fused(self) -> bool:
        """Whether the fused kernel attends, in the program that is being traced."""
        return chosen(self.config) == "cudnn"

    def block(self, i: int) -> Block:
        """The i-th block, cut out of the stack."""
        return jax.tree.map(lambda a: a[i], self.blocks)

    def cut(self) -> list[Block]:
        """All blocks; their gradients are put together once, where those of single slices would each be padded to the stack and added."""
        leaves, kind = jax.tree.flatten(self.blocks)
        parts = [[x.reshape(x.shape[1:]) for x in jax.lax.split(leaf, (1,) * self.depth)] for leaf in leaves]
        return [jax.tree.unflatten(kind, layer) for layer in zip(*parts, strict=True)]

    def finish(self, x: jax.Array) -> jax.Array:
        """The final norm; blocks that normalise after themselves need none."""
        return x if self.norm is None else self.norm(x)

    def bias(self, mask_B1TS: jax.Array, query_T: jax.Array, key_S: jax.Array) -> jax.Array:
        """Attention bias [B, 1 or H, T, S]: the mask, and T5's learned distance bias if configured."""
        if self.relative is None:
            return mask_B1TS
        c = self.config
        buckets = positions.relative_buckets(query_T, key_S, not self.causal, c.relative_buckets, c.relative_distance)
        return mask_B1TS + jnp.moveaxis(self.relative[...][buckets], -1, 0)[None]

    def _read(self, seen: Segments | jax.Array, length: int) -> Segments | jax.Array:
        """`seen` as the fused kernel reads it, or as a bias; learned distances need the latter."""
        if not isinstance(seen, Segments):
            return self.bias(seen, jnp.arange(length), jnp.arange(length))
        if self.fused and self.relative is None:
            return seen
        return self.bias(seen.bias(), jnp.arange(length), jnp.arange(length))

    def rope(self, positions_BT: jax.Array):
        """Rotary tables, or None for other kinds of position."""
        c = self.config
        return positions.rotary(positions_BT, c.head_dim or c.width // c.heads, c.rope_theta) if c.positions == "rotary" else None

    def attention(self, x_BTD, mask_B1TS, positions_BT) -> jax.Array:
        """Self-attention of every layer, float32 [L, B, H, T, S] (`Attention.weights`)."""
        order = jnp.arange(x_BTD.shape[1])
        bias, rope, found = self.bias(mask_B1TS, order, order), self.rope(positions_BT), []
        for block in map(self.block, range(self.depth)):
            found.append(block.attention.weights(x_BTD if block.post_norm else block.norm_attention(x_BTD), bias, rope))
            x_BTD = block(x_BTD, bias, rope)[0]
        return jnp.stack(found)

    def __call__(
        self, x_BTD, seen: Segments | jax.Array, positions_BT, source_BSD=None, source_seen: Segments | None = None, key=None,
        asked_BN: jax.Array | None = None,
    ):  # fmt: skip
        """The whole sequence at once, for training: [B, T, D] -> normalised [B, T, D], or [B, N, D] at the positions `asked_BN`.

        `seen` may also be a bias [B, 1, T, T], where segments aren't single stretches; the fused kernel reads none.
        """
        x_BTD = sharding.by_rows(x_BTD)
        bias, source_bias, rope = self._read(seen, x_BTD.shape[1]), source_seen, self.rope(positions_BT)
        if source_seen is not None and not self.fused:
            source_bias = source_seen.bias()
        if isinstance(bias, Segments):
            x_BTD = fused.poisoned(x_BTD, bias)

        def body(x, layer_and_key, asked=()):
            layer, layer_key = layer_and_key
            run = layer.answer if asked else layer
            return sharding.by_rows(run(x, *asked, bias, rope, source_BSD, source_bias, layer_key)[0]), None

        if self.config.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[self.config.remat], prevent_cse=not self.config.scan)
        keys = [None] * self.depth if key is None else jax.random.split(key, self.depth)
        if self.config.scan:
            x_BTD, _ = jax.lax.scan(body, x_BTD, (self.blocks, None if key is None else keys))
        else:
            *earlier, last = self.cut()
            for block, block_key in zip(earlier, keys, strict=False):
                x_BTD, _ = body(x_BTD, (block, block_key))
            alone = asked_BN is not None and answers(last) and not isinstance(bias, Segments)
            x_BTD, _ = body(x_BTD, (last, keys[-1]), (asked_BN,) if alone else ())
            asked_BN = None if alone else asked_BN
        return self.finish(x_BTD if asked_BN is None else at(x_BTD, asked_BN))

    def decode(
        self, x_BTD, mask_B1TS, positions_BT, caches: Sequence, write_at, *, blocks=None, prefixes=None, sources=None, source_bias=None,
        newest: bool = False,
    ) -> tuple[jax.Array, list]:  # fmt: skip
        """(normalised [B, T, D] of T further positions, the caches with their keys and values written from `write_at` on).

        With `newest` (of a LayerCache, and nothing before it) the outputs are [B, 1, D], those of the last position alone.
        `caches` and, where given, `prefixes` (read before them), `sources` (read across) and `blocks` (as cut out) have one entry a layer.
        """
        before = prefixes[0].k.shape[2] if prefixes else 0
        query_T, key_S = before + write_at + jnp.arange(x_BTD.shape[1]), key_positions(caches[0], len(x_BTD), before)
        bias, rope, new = self.bias(mask_B1TS, query_T, key_S), self.rope(positions_BT), []
        for i, cache in enumerate(caches):
            block, across = blocks[i] if blocks else self.block(i), (sources[i], source_bias) if sources else ()
            read = {"prefix": prefixes[i]} if prefixes else {}
            asked, run = (), block
            if newest and i == self.depth - 1 and answers(block):
                asked, run = (jnp.full((len(x_BTD), 1), x_BTD.shape[1] - 1),), block.answer
            x_BTD, cache = run(x_BTD, *asked, bias, rope, *across, cache=cache, write_at=write_at, **read)
            new.append(cache)
        return self.finish(x_BTD[:, -1:] if newest else x_BTD), new


class Entrance(nnx.Module):
    """What token vectors [B, T, D] go through before a stack: learned positions [P, D] and a norm, if configured, and dropout."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        self.config, rows = config, config.max_positions + config.position_offset
        learned = config.positions == "learned"
        self.places = param.normal(key, (rows, config.width), (None, "embed"), 0.01) if learned else None
        typed = config.token_types > 0
        self.types = param.normal(key, (config.token_types, config.width), (None, "embed"), config.init_std) if typed else None
        self.norm = Norm(config.width, config.norm, config.norm_eps) if config.embedding_norm else None

    def enter(self, x_BTD: jax.Array, positions_BT: jax.Array, key=None) -> jax.Array:
        """[B, T, D] in the compute type."""
        if self.places is not None:
            x_BTD = x_BTD + sharding.rows_of(self.places[...], positions_BT + self.config.position_offset)
        if self.types is not None:
            x_BTD = x_BTD + self.types[0]
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        return dropout(x_BTD.astype(self.config.dtype), self.config.dropout, key)


class Embedding(Entrance):
    """Token table [V, D] with the entrance to the first stack, and the output matrix."""

    def __init__(self, config: ModelConfig, key: jax.Array, vocab_size: int):
        keys = jax.random.split(key, 3)
        super().__init__(config, keys[1])
        # T5 divides its tied output by sqrt(D), so its embeddings start at unit scale.
        self.shrink = config.width**-0.5 if config.tied and config.positions == "relative" else 1.0
        std = 1.0 if self.shrink != 1.0 else config.init_std
        self.tokens = param.normal(keys[0], (vocab_size, config.width), ("vocab", "embed"), std)
        self.output = None if config.tied else param.fan_in(keys[2], (vocab_size, config.width), ("vocab", "embed"), config.width)

    def __call__(self, tokens_BT: jax.Array, positions_BT: jax.Array, key=None, shift_BTD: jax.Array | None = None) -> jax.Array:
        """Embeddings [B, T, D] in the compute type; `shift_BTD` is added to the token vectors."""
        return self.enter(self.vectors(tokens_BT, shift_BTD), positions_BT, key)

    def vectors(self, tokens_BT: jax.Array, shift_BTD: jax.Array | None = None) -> jax.Array:
        """The tokens' rows of the table, float32 [B, T, D], moved by `shift_BTD`."""
        x_BTD = sharding.rows_of(self.tokens[...], tokens_BT)
        return x_BTD if shift_BTD is None else x_BTD + shift_BTD

    def head(self) -> tuple[jax.Array, float]:
        """The output matrix [V, D] and the factor on hidden states before it."""
        return (self.tokens if self.output is None else self.output)[...], self.shrink


def check_shapes(config: ModelConfig) -> None:
    """Raises UserError when widths and heads do not fit each other."""
    kv = config.kv_heads or config.heads
    if not config.head_dim and config.width % config.heads:
        raise UserError(f"--width={config.width} is not a multiple of --heads={config.heads}; change one, or give --head_dim.")
    if config.heads % kv:
        raise UserError(f"--heads={config.heads} is not a multiple of --kv_heads={kv}; each key head serves whole query heads.")
    if config.positions == "rotary" and (config.head_dim or config.width // config.heads) % 2:
        raise UserError("Rotary positions need an even head width; change --width, --heads or --head_dim.")
