"""A model with an adapter: the same calls, on the frozen parameters and a few trained ones under "adapter".

The model's code knows nothing of it. Each method defines its parameters beside those of the model, by path, and replaces parts of the
assembled module by wrappers (rgjax/nn/adapters) that hold the part they stand for.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx

from rgjax import trees
from rgjax.config import AdapterConfig, ModelConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.nn.adapters import bottleneck, lowrank, prompt, scaled
from rgjax.nn.adapters.bottleneck import Bottleneck
from rgjax.nn.adapters.lowrank import LowRank
from rgjax.nn.adapters.prefix import Prefixed
from rgjax.nn.adapters.prompt import Prompted
from rgjax.nn.adapters.scaled import Scaled
from rgjax.nn.attention import LayerCache
from rgjax.nn.feedforward import GATED

MATRIX = re.compile(r"\.blocks\.(attention|cross|mlp)\.(w[qkvo]|w_in|w_gate|w_out)$")
USUAL = {"lora": "", "adalora": "", "ia3": r"attention\.w[kv]$|cross\.w[kv]$|mlp\.w_out$"}
LOW_RANK = ("lora", "adalora")
PREPENDED = ("prompt", "vectors")  # methods whose virtual tokens stand in the batch, as placeholders


class AdaptedFactory:
    """As ModelFactory, for weights that are the model's own and, under "adapter", the adapter's."""

    def __init__(self, base: ModelFactory, config: AdapterConfig, vector_width: int = 0):
        """`vector_width`: entries of an example's vector (adapter 'vectors'). Raises UserError where the model can't carry the adapter."""
        check_fits(config, base.config)
        self.base, self.adapter, self.vector_width = base, config, vector_width
        self.config, self.vocab_size = base.config, base.vocab_size
        made = jax.eval_shape(lambda: self._parameters(jax.random.key(0), None))
        self.abstract = nnx.State({**nnx.State(base.abstract).raw_mapping, "adapter": _state(made)})

    def fresh(self, key: jax.Array, given: dict | None = None) -> dict:
        """All weights: those `given` (the model's own, or also the adapter), the others fresh."""
        if given and "adapter" in given:
            return given
        own = given or self.base.fresh(jax.random.fold_in(key, 0))
        made = self._parameters(jax.random.fold_in(key, 1), own)
        return {**own, "adapter": nnx.to_pure_dict(_state(made))}

    def count(self) -> int:
        """Number of parameters, the adapter's included."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(self.abstract)))

    def model(self, weights: dict, vectors_BMZ: jax.Array | None = None) -> Adapted:
        """The model holding `weights`, and reading `vectors_BMZ` when it decodes."""
        return Adapted(self, weights, vectors_BMZ)

    def _parameters(self, key: jax.Array, own: dict | None) -> dict:
        """Nested dict of nnx.Param; `own` are the model's weights where they are known."""
        c, kind, width = self.adapter, self.adapter.adapter, self.config.width
        made: dict = {}
        for path, variable in targets(self.base, c):
            name, shape, axes = path.rsplit(".", 1)[1], variable.get_value().shape, variable.get_metadata("axes")
            base = own and trees.at(own, path)
            one = jax.random.fold_in(key, zlib.crc32(path.encode()))
            new = lowrank.parameters(name, shape, axes, c, one, base) if kind in LOW_RANK else scaled.parameters(name, shape, axes)
            trees.put(made, path, new)
        if kind == "bottleneck":
            for i, (path, layers) in enumerate(sublayers(self.base, c.bottleneck)):
                trees.put(made, path, bottleneck.parameters(layers, width, c, jax.random.fold_in(key, i)))
        elif kind == "prefix":
            k, v = self._tokens_read(key, own)
            axes = (None, "kv_heads", None)
            trees.put(made, "decoder.blocks.attention", {"k": nnx.Param(k, axes=axes), "v": nnx.Param(v, axes=axes)})
        elif kind in PREPENDED:
            trees.put(made, "embedding", prompt.parameters(c.virtual_tokens, width, self.vector_width, key, own and own["embedding"]["tokens"]))
        return made

    def _tokens_read(self, key: jax.Array, own: dict | None) -> tuple[jax.Array, jax.Array]:
        """Keys and values [L, N, K, A] of a row of random tokens: the prefix starts as a text would (Li & Liang 2021, section 7.4)."""
        c, n = self.config, self.adapter.virtual_tokens
        empty = jnp.zeros((1, n, c.kv_heads or c.heads, c.head_dim or c.width // c.heads), jnp.float32)
        if own is None:
            stacked = jnp.zeros((c.layers, *empty.shape[1:]), jnp.float32)
            return stacked, stacked
        order, tokens = jnp.arange(n), jax.random.randint(key, (1, n), 0, self.vocab_size)
        mask = jnp.where(order[None, :] <= order[:, None], 0.0, -1e9)[None, None]
        _, caches = self.base.model(own).decode(tokens, order[None], mask, [LayerCache(empty, empty)] * c.layers, jnp.int32(0))
        return tuple(jnp.stack([cache[i][0] for cache in caches]).astype(jnp.float32) for i in (0, 1))


@jax.tree_util.register_pytree_node_class
class Adapted:
    """The model's calls with the adapter in place. Not a module: it lives within one traced function; a tree of its weights."""

    def __init__(self, factory: AdaptedFactory, weights: dict, vectors_BMZ: jax.Array | None = None):
        """`vectors_BMZ`: of the rows to decode (adapter 'vectors'); batches bring their own."""
        self.factory, self.config, self.vectors = factory, factory.config, vectors_BMZ
        self.own = {name: value for name, value in weights.items() if name != "adapter"}
        self.values = weights["adapter"]
        self.shift = factory.adapter.virtual_tokens if factory.adapter.adapter == "prefix" else 0

    def tree_flatten(self) -> tuple[tuple, AdaptedFactory]:
        return (self.own | {"adapter": self.values}, self.vectors), self.factory

    @classmethod
    def tree_unflatten(cls, factory: AdaptedFactory, children: tuple) -> Adapted:
        return cls(factory, *children)

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """As the model's; `key` also drops entries in the adapter."""
        keys = (None, None) if key is None else jax.random.split(key)
        segments = batch["encoder_segment_ids" if self.config.architecture == "seq2seq" else "segment_ids"]
        model = self._module(batch.get("vectors"), segments, keys[1])
        return model(batch | {"positions": batch["positions"] + self.shift}, keys[0])

    def encode(self, batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
        """As the encoder-decoder's."""
        return self._module(self.vectors).encode(batch, key)

    def cross_caches(self, source_BSD: jax.Array) -> list[LayerCache]:
        """As the encoder-decoder's."""
        return self._module(self.vectors).cross_caches(source_BSD)

    def blocks(self):
        """As the model's."""
        return self._module(prompted=False).blocks()

    def decode(self, tokens_BT, positions_BT, mask_B1TS, caches, write_at, *read, **how):
        """As the model's. What is `read` (the prompt or the encoder's output) holds the virtual tokens already."""
        model = self._module(self.vectors, prompted=not read)
        return model.decode(tokens_BT, positions_BT + self.shift, mask_B1TS, caches, write_at, *read, **how)

    def head(self) -> tuple[jax.Array, float]:
        """As the model's."""
        return self.factory.base.model(self.own).head()

    def _module(self, vectors_BMZ=None, segments_BT=None, key: jax.Array | None = None, prompted: bool = True):
        model = self.factory.base.model(self.own)
        install(model, self.factory, self.values, key)
        if prompted and self.factory.adapter.adapter in PREPENDED:
            model.embedding = Prompted(model.embedding, self.factory.adapter.virtual_tokens, self.values["embedding"], vectors_BMZ, segments_BT)
        return model


def install(model: nnx.Module, factory: AdaptedFactory, values: dict, key: jax.Array | None = None) -> None:
    """Replaces parts of an assembled module's layers by wrappers that hold `values`; `key` drops entries of low-rank inputs."""
    c, kind = factory.adapter, factory.adapter.adapter
    for path, _ in targets(factory.base, c):
        parent, name = parent_of(model, path)
        axes, found = lowrank.INPUT_AXES.get(name, 1), trees.at(values, path)
        if kind in LOW_RANK:
            wrapper = LowRank(getattr(parent, name), found, c, axes, _layer_keys(key, path, found["a"].shape[0]) if c.adapter_dropout else None)
        else:
            wrapper, bias = Scaled(getattr(parent, name), found["l"], axes, name in scaled.BY_INPUT), bias_of(name)
            if getattr(parent, bias) is not None and name not in scaled.BY_INPUT:
                setattr(parent, bias, Scaled(getattr(parent, bias), found["l"], 0, False))
        setattr(parent, name, wrapper)
    if kind == "bottleneck":
        for path, _ in sublayers(factory.base, c.bottleneck):
            parent, name = parent_of(model, path)
            setattr(parent, name, Bottleneck(getattr(parent, name), trees.at(values, path), c.bottleneck))
    elif kind == "prefix":
        blocks, found = model.decoder.blocks, trees.at(values, "decoder.blocks.attention")
        blocks.attention = Prefixed(blocks.attention, found["k"], found["v"])


def targets(base: ModelFactory, config: AdapterConfig) -> Iterator[tuple[str, nnx.Param]]:
    """(path, abstract parameter) of each matrix that the adapter acts on."""
    if config.adapter in USUAL:
        pattern = re.compile(config.targets or USUAL[config.adapter])
        for path, variable in nnx.to_flat_state(base.abstract):
            dotted = ".".join(map(str, path))
            if MATRIX.search(dotted) and pattern.search(dotted):
                yield dotted, variable


def sublayers(base: ModelFactory, style: str) -> Iterator[tuple[str, int]]:
    """(path, layers) of what is followed by a bottleneck, parts before wholes."""
    c = base.config
    stacks = {"decoder": c.layers}
    if c.architecture == "encoder":
        stacks = {"encoder": c.layers}
    elif c.architecture == "seq2seq":
        stacks["encoder"] = c.encoder_layers or c.layers
    for stack, layers in stacks.items():
        for part in (".attention", ".mlp") if style == "houlsby" else ("",):
            yield f"{stack}.blocks{part}", layers


def check_fits(config: AdapterConfig, model: ModelConfig) -> None:
    """Raises UserError naming the flag when a model of this kind can't carry the adapter."""
    kind = config.adapter
    if kind == "prefix" and (model.architecture != "causal" or model.positions == "relative"):
        raise UserError("--adapter=prefix needs a decoder-only model without relative positions; take lora, prompt or bottleneck.")
    if kind in PREPENDED and model.architecture == "encoder":
        raise UserError(f"--adapter={kind} needs a model that writes text; take lora or bottleneck.")
    if kind == "bottleneck" and config.bottleneck == "pfeiffer" and model.post_norm:
        raise UserError("--bottleneck=pfeiffer is computed for models that normalise before each layer; take --bottleneck=houlsby.")
    if config.dora and kind != "lora":
        raise UserError(f"--dora needs --adapter=lora, not {kind}; leave one out.")
    if kind == "adalora" and config.initial_rank < config.rank:
        raise UserError(f"--initial_rank={config.initial_rank} is below --rank={config.rank}, with which adalora ends; raise it.")
    try:
        pattern = re.compile(config.targets)
    except re.error as error:
        raise UserError(f"--targets={config.targets} is no regular expression ({error}); write one, as 'attention.w[qv]$'.") from None
    if config.targets and kind not in USUAL:
        raise UserError(f"--targets={config.targets} means nothing to --adapter={kind}; leave it out.")
    names = list(_matrices(model))
    if not any(pattern.search(name) for name in names):
        raise UserError(f"--targets={config.targets} matches no matrix of this model; the paths are like {names[0]} and {names[-1]}.")


def _matrices(model: ModelConfig) -> Iterator[str]:
    """Paths of the matrices in the layers of a model."""
    gate = ("w_gate",) if model.activation in GATED else ()
    for stack in {"causal": ("decoder",), "encoder": ("encoder",), "seq2seq": ("decoder", "encoder")}[model.architecture]:
        crosses = ("cross",) if model.architecture == "seq2seq" and stack == "decoder" else ()
        for part in ("attention", *crosses, "mlp"):
            for name in ("w_in", *gate, "w_out") if part == "mlp" else ("wq", "wk", "wv", "wo"):
                yield f"{stack}.blocks.{part}.{name}"


def bias_of(name: str) -> str:
    """The name of the bias beside a matrix."""
    return "b" + name.removeprefix("w")


def bias_path(path: str) -> str:
    parent, name = path.rsplit(".", 1)
    return f"{parent}.{bias_of(name)}" if name not in scaled.BY_INPUT else ""


def _layer_keys(key: jax.Array | None, path: str, layers: int) -> jax.Array | None:
    return None if key is None else jax.random.key_data(jax.random.split(jax.random.fold_in(key, zlib.crc32(path.encode())), layers))


def parent_of(model, path: str):
    *parents, name = path.split(".")
    for part in parents:
        model = getattr(model, part)
    return model, name


def _state(tree: dict) -> nnx.State:
    return nnx.State({name: _state(value) if isinstance(value, dict) else value for name, value in tree.items()})
