"""What a family file declares: a translation of the configuration, and a table of parameter names.

A rule maps one of our parameters to one Hugging Face tensor. Names hold `{i}` where layers are numbered; ours are stacked
along a leading axis there. `kind` says how a matrix is laid out on the other side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from rgjax.config import ModelConfig
from rgjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rule:
    """`ours` is a dotted path of a parameter; `theirs` its tensor's name.

    kind 'as_is' keeps the array; 'linear' is our [in, out] against torch's [out, in]; 'heads_in' our [D, H, A] against
    [H * A, D]; 'heads_out' our [H, A, D] against [D, H * A]; 'heads_bias' our [H, A] against [H * A].
    """

    ours: str
    theirs: str
    kind: str = "as_is"

    def export(self, x: np.ndarray) -> np.ndarray:
        if self.kind == "linear":
            x = x.T
        elif self.kind == "heads_in":
            x = x.reshape(x.shape[0], -1).T
        elif self.kind == "heads_out":
            x = x.reshape(-1, x.shape[-1]).T
        elif self.kind == "heads_bias":
            x = x.reshape(-1)
        return np.ascontiguousarray(x)


@dataclasses.dataclass(frozen=True)
class Family:
    """One Hugging Face architecture.

    `refuses(config)` returns the sentence why a model of ours is not of this family, or None. `config(config, vocab_size)`
    is the body of config.json. `rules(config)` lists every parameter once.
    """

    name: str
    refuses: Callable[[ModelConfig], str | None]
    config: Callable[[ModelConfig, int], dict]
    rules: Callable[[ModelConfig], list[Rule]]
    start_is_pad: bool = False  # generation starts from the padding token (encoder-decoders)


def tensors(params: dict, rules: list[Rule]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every exported tensor; raises UserError when a parameter has no rule."""
    left = {path: leaf for path, leaf in _flat(params)}
    for rule in rules:
        if rule.ours not in left:
            raise UserError(f"The checkpoint lacks the parameter {rule.ours}; it is of another architecture than its configuration.")
        array = np.asarray(left.pop(rule.ours))
        if "{i}" in rule.theirs:
            for i in range(array.shape[0]):
                yield rule.theirs.format(i=i), rule.export(array[i])
        else:
            yield rule.theirs, rule.export(array)
    if left:
        raise UserError(f"The parameter {next(iter(left))} has no place in this Hugging Face family; choose another --family.")


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def attention_rules(ours: str, theirs: str, names: str = "q_proj k_proj v_proj o_proj", bias: bool = False) -> list[Rule]:
    """The four projections of one attention; `names` in the order query, key, value, output."""
    rules = []
    for ours_name, their_name in zip("qkvo", names.split(), strict=True):
        kind = "heads_out" if ours_name == "o" else "heads_in"
        rules.append(Rule(f"{ours}.w{ours_name}", f"{theirs}.{their_name}.weight", kind))
        if bias:
            rules.append(Rule(f"{ours}.b{ours_name}", f"{theirs}.{their_name}.bias", "as_is" if ours_name == "o" else "heads_bias"))
    return rules
