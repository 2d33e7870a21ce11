"""What a family file declares, used in both directions: tables of configuration fields and of parameter names.

A rule maps one of our parameters to one Hugging Face tensor. Names hold `{i}` where layers are numbered; ours are stacked
along a leading axis there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator

import numpy as np

from rgjax import trees
from rgjax.config import ModelConfig
from rgjax.errors import UserError
from rgjax.nn.feedforward import hidden_width

METADATA = {"format": "pt", "written_by": "rgjax"}  # of every weight file that is written; transformers wants the first

# For each kind, which of our axes, folded together, make each axis of theirs. Other kinds keep the array as it is.
KINDS = {
    "linear": ((1,), (0,)),  # [in, out] against torch's Linear [out, in]
    "heads_in": ((1, 2), (0,)),  # [D, H, A] against [H * A, D]
    "heads_out": ((2,), (0, 1)),  # [H, A, D] against [D, H * A]
    "heads_bias": ((0, 1),),  # [H, A] against [H * A]
    "conv_in": ((0,), (1, 2)),  # [D, H, A] against GPT-2's Conv1D [D, H * A]
    "conv_out": ((0, 1), (2,)),  # [H, A, D] against [H * A, D]
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """`ours` is a dotted path of a parameter, `theirs` its tensor's name, `kind` how the axes lie there (`KINDS`, or 'as_is').

    `part` (k, n): ours is the k-th of n equal parts of their last axis; the rules of all parts follow each other.
    """

    ours: str
    theirs: str
    kind: str = "as_is"
    part: tuple[int, int] = (0, 1)

    def groups(self, ndim: int) -> tuple[tuple[int, ...], ...]:
        """For each of their axes, our axes that make it."""
        return KINDS.get(self.kind, tuple((axis,) for axis in range(ndim)))

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Their shape, all parts together, for our shape without the axis of layers."""
        sizes = [math.prod(ours[axis] for axis in group) for group in self.groups(len(ours))]
        return (*sizes[:-1], sizes[-1] * self.part[1]) if sizes else ()

    def export(self, x: np.ndarray) -> np.ndarray:
        """Our array in their layout (this part of it)."""
        groups = self.groups(x.ndim)
        sizes = [math.prod(x.shape[axis] for axis in group) for group in groups]
        return np.ascontiguousarray(x.transpose([axis for group in groups for axis in group]).reshape(sizes))

    def read(self, tensor, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """`index` of our array of `shape` as float32, slicing no more out of `tensor` than that."""
        spans = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
        groups = self.groups(len(shape))
        slices = [_folded(group, spans, shape) for group in groups]
        skip = self.part[0] * math.prod(shape[axis] for axis in groups[-1])
        slices[-1] = slice(slices[-1].start + skip, slices[-1].stop + skip)
        order = [axis for group in groups for axis in group]
        # A copy, even of float32: an array on a CPU device would be the file's own memory where that is aligned.
        found = np.array(tensor[tuple(slices)], np.float32).reshape([len(spans[axis]) for axis in order])
        return found.transpose(np.argsort(order))


def _folded(group: tuple[int, ...], spans: list[range], shape: tuple[int, ...]) -> slice:
    """The span of an axis made of our axes `group`; only the first of them may be cut (a head lies whole on a device)."""
    inner = math.prod(shape[axis] for axis in group[1:])
    assert all(len(spans[axis]) == shape[axis] for axis in group[1:])
    return slice(spans[group[0]].start * inner, spans[group[0]].stop * inner)


_HEAD = "(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForMaskedLM)$"  # of a class that generates; its base model's ends in Model

_USUAL = ModelConfig()
# What a family does not say otherwise in `shape`.
PLAIN = {
    "architecture": "causal", "bias": False, "qkv_bias": False, "qk_norm": False, "post_norm": False, "embedding_norm": False,
    "position_offset": 0, "token_types": 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Family:
    """One Hugging Face architecture, as tables.

    `shape` (over `PLAIN`) are the options every model of the family has. `fixed` are fields of config.json with the one
    value that we compute. `fields` maps fields of config.json to our options; those in `defaults` may be missing or null
    there. `activations` maps the values of the field `activation_field` to ours. `rules(config)` lists every parameter once.
    `more(config)` are further fields to write; `options(body)` further options read from config.json, and raises UserError for
    what we do not compute. `buffers(rows)` are tensors of zeros, by shape; `copies` maps duplicates of tied tensors to their
    originals; `stand_ins` maps tensors that may be missing to what is read instead; `ignored` end names of tensors that hold no
    parameter; `prefix` is left out of the names when only the base model was saved; `endings` maps ends of names in old files to
    today's; `classes` are further values of `architectures` with the same tensors; `tokenizer_class` loads the tokenizer;
    `bottlenecks` names, by stack and sub-layer, where AdapterHub keeps adapters.
    """

    name: str
    model_class: str
    shape: dict
    fixed: dict
    fields: dict[str, str]
    rules: Callable[[ModelConfig], list[Rule]]
    defaults: dict = dataclasses.field(default_factory=dict)
    activation_field: str = ""
    activations: dict[str, str] = dataclasses.field(default_factory=dict)
    more: Callable[[ModelConfig], dict] = lambda config: {}
    options: Callable[[dict], dict] = lambda body: {}
    buffers: Callable[[int], dict[str, tuple[int, ...]]] = lambda rows: {}
    copies: dict[str, str] = dataclasses.field(default_factory=dict)
    stand_ins: dict[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    endings: dict[str, str] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    tokenizer_class: str = "AutoTokenizer"
    bottlenecks: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def seq2seq(self) -> bool:
        """Whether it is an encoder-decoder."""
        return self.shape.get("architecture") == "seq2seq"

    @property
    def encoder(self) -> bool:
        """Whether it is an encoder alone, which makes vectors and writes no text."""
        return self.shape.get("architecture") == "encoder"

    def renamed(self, name: str) -> str:
        """A tensor's name with an ending of old files as it is today."""
        old = next((end for end in self.endings if name.endswith(end)), "")
        return name.removesuffix(old) + self.endings.get(old, "")

    def refuses(self, config: ModelConfig) -> str | None:
        """Why a model of ours is not of this family, or None."""
        c, named = resolved(config), self.fields.values()
        for name, wanted in (PLAIN | self.shape).items():
            if name not in named and getattr(config, name) != wanted:
                return f"it has --{name}={getattr(config, name)}, not {wanted}"
        if self.activations and config.activation not in self.activations.values():
            return f"it has --activation={config.activation}, not one of {', '.join(self.activations.values())}"
        if c.kv_heads != c.heads and "kv_heads" not in named:
            return "it has grouped key heads"
        return None if "head_dim" in named or c.head_dim * c.heads == c.width else "its heads together are not as wide as the model"

    def body(self, config: ModelConfig, rows: int) -> dict:
        """config.json of a model of ours with `rows` embeddings."""
        c = resolved(config)
        body = {"architectures": [self.model_class], "model_type": self.name, "vocab_size": rows, **self.fixed}
        body |= {theirs: getattr(c, ours) for theirs, ours in self.fields.items()}
        if self.activations:
            body[self.activation_field] = next(theirs for theirs, ours in self.activations.items() if ours == c.activation)
        return body | {"use_cache": True} | self.more(c)

    def read(self, body: dict) -> dict:
        """Our options for a config.json; raises UserError at a field we do not compute, KeyError at one that is missing."""
        known = (self.model_class, re.sub(_HEAD, "Model", self.model_class), *self.classes)
        if not isinstance(body.get("architectures") or [], list):
            raise TypeError(f"architectures={body['architectures']!r}")
        if (named := (body.get("architectures") or known)[0]) not in known:
            raise UserError(f"config.json says architectures {named!r}, and rgjax reads {', '.join(known)} of this type only; use one of them.")
        for field, value in self.fixed.items():
            if body.get(field, value) != value:
                raise UserError(f"config.json says {field}={body[field]!r}, and rgjax computes {self.name} with {value!r} only; use another model.")
        options = dict(self.shape)
        for field, ours in self.fields.items():
            value = body.get(field)
            value = options[ours] = self.defaults[field] if value is None and field in self.defaults else body[field]
            kind = type(getattr(_USUAL, ours))
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f"{field}={value!r}")
        if self.activations:
            act = body.get(self.activation_field) or self.defaults[self.activation_field]
            if act not in self.activations:
                known = ", ".join(self.activations)
                raise UserError(f"config.json says {self.activation_field}={act!r}, and rgjax computes {known} only; use another model.")
            options["activation"] = self.activations[act]
        return options | self.options(body)


def resolved(c: ModelConfig) -> ModelConfig:
    """The configuration with every width that a 0 leaves to a rule written out."""
    return dataclasses.replace(
        c, kv_heads=c.kv_heads or c.heads, head_dim=c.head_dim or c.width // c.heads, mlp_width=hidden_width(c),
        encoder_layers=c.encoder_layers or c.layers,
    )  # fmt: skip


def tensors(params: dict, rules: list[Rule]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every exported tensor; raises UserError when a parameter has no rule."""
    left = dict(trees.flat(params))
    for name, parts in itertools.groupby(rules, key=lambda rule: rule.theirs):
        arrays = [(rule, np.asarray(_taken(left, rule))) for rule in parts]
        if "{i}" in name:
            for i in range(arrays[0][1].shape[0]):
                yield name.format(i=i), np.concatenate([rule.export(array[i]) for rule, array in arrays], axis=-1)
        else:
            yield name, np.concatenate([rule.export(array) for rule, array in arrays], axis=-1)
    if left:
        raise UserError(f"The parameter {next(iter(left))} has no place in this Hugging Face family; choose another --family.")


def _taken(left: dict, rule: Rule):
    if rule.ours not in left:
        raise UserError(f"The checkpoint lacks the parameter {rule.ours}; it is of another architecture than its configuration.")
    return left.pop(rule.ours)


def attention_rules(ours: str, theirs: str, names: str = "q_proj k_proj v_proj o_proj", bias: str = "") -> list[Rule]:
    """The four projections of one attention; `names` in the order query, key, value, output; `bias`: those that have one, as 'qkv'."""
    rules = []
    for ours_name, their_name in zip("qkvo", names.split(), strict=True):
        kind = "heads_out" if ours_name == "o" else "heads_in"
        rules.append(Rule(f"{ours}.w{ours_name}", f"{theirs}.{their_name}.weight", kind))
        if ours_name in bias:
            rules.append(Rule(f"{ours}.b{ours_name}", f"{theirs}.{their_name}.bias", "as_is" if ours_name == "o" else "heads_bias"))
    return rules


def norm_rules(ours: str, theirs: str) -> list[Rule]:
    """Scale and shift of one layer normalisation."""
    return [Rule(f"{ours}.scale", f"{theirs}.weight"), Rule(f"{ours}.shift", f"{theirs}.bias")]


def linear_rules(ours: str, name: str, theirs: str) -> list[Rule]:
    """Matrix and bias of one biased layer of a feed-forward."""
    return [Rule(f"{ours}.w_{name}", f"{theirs}.weight", "linear"), Rule(f"{ours}.b_{name}", f"{theirs}.bias")]


def bottleneck_places(layer: str) -> dict[str, str]:
    """Where most of AdapterHub's models keep the adapters of a layer."""
    return {"attention": f"{layer}.attention_adapters", "mlp": f"{layer}.output_adapters"}
