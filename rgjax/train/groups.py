"""Learning rates by group of parameters: factors by name, and layer-wise decay (ELECTRA, Clark et al. 2020; BEiT, Bao et al. 2022).

The factors multiply the finished updates, decoupled weight decay included, which is what a group's own learning rate does in torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from rgjax.config import OptimizerConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.train.state import everything

_BLOCKS = ".blocks."  # parameters below it are stacked, [L, ...]


def parse(text: str) -> list[tuple[re.Pattern, float]]:
    """'PATTERN=FACTOR;...' as pairs, in order; raises UserError for what is not of that form."""
    groups = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        pattern, equals, factor = part.rpartition("=")
        try:
            groups.append((re.compile(pattern), float(factor)))
        except (ValueError, re.error):
            equals = ""
        if not (equals and pattern and 0 <= groups[-1][1] < float("inf")):
            raise UserError(f"--lr_groups has '{part}'; write PATTERN=FACTOR, a regular expression and a number of at least 0.")
    return groups


def check(config: OptimizerConfig, factory: ModelFactory, trained: Callable[[str], bool] = everything) -> None:
    """Raises UserError for a pattern of --lr_groups that decides the factor of no parameter that is trained (`trained` says so, by path), and
    for --layer_decay where no layer is."""
    left = {name for name in _named(nnx.to_pure_dict(factory.abstract)) if trained(name)}
    if config.layer_decay != 1 and not any(_BLOCKS in name for name in left):
        raise UserError(f"--layer_decay={config.layer_decay} orders the layers, and none of them is trained; leave it out.")
    for pattern, _ in parse(config.lr_groups):
        mine = {name for name in left if pattern.search(name)}
        if not mine:
            raise UserError(
                f"--lr_groups has '{pattern.pattern}', which matches no trained parameter that an earlier pattern leaves; "
                f"mend it, paths are such as {min(left, default='none')}."
            )
        left -= mine


def factors(config: OptimizerConfig, params: dict) -> dict:
    """For each parameter a number, or float32 [L, 1, ...] where layers are stacked; nested like `params`."""
    leaves, tree = jax.tree_util.tree_flatten(params)
    groups, names = parse(config.lr_groups), _named(params)
    places = [name.removeprefix("adapter.") for name in names]  # what is added to a layer learns as the layer does
    depths = {place.partition(_BLOCKS)[0]: leaf.shape[0] for place, leaf in zip(places, leaves, strict=True) if _BLOCKS in place}
    group = lambda name: next((factor for pattern, factor in groups if pattern.search(name)), 1.0)
    layers = (_layer(place, leaf.ndim, depths, config.layer_decay) for place, leaf in zip(places, leaves, strict=True))
    found = [group(name) * layer for name, layer in zip(names, layers, strict=True)]
    return jax.tree_util.tree_unflatten(tree, found)


def _named(params: dict) -> list[str]:
    """Dotted paths of the leaves, in their order."""
    return [".".join(str(key.key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _layer(name: str, ndim: int, depths: dict[str, int], decay: float):
    """decay ** (L + 1 - depth): depth 0 at the embedding, i + 1 in block i, L + 1 from the final norm on.

    Encoder and decoder count their own L; a shared embedding is below the deeper of them. Distance biases belong to no block
    alone and are read by all: they count as embedding.
    """
    stack, blocks, _ = name.partition(_BLOCKS)
    if blocks:
        return np.float32(decay) ** np.arange(depths[stack], 0, -1, dtype=np.float32).reshape(-1, *(1,) * (ndim - 1))
    first, _, rest = name.partition(".")
    if first == "embedding" and rest != "output":
        return decay ** (1 + max(depths.values(), default=0))
    if first == "entrance" or rest == "relative":
        return decay ** (1 + depths.get("decoder" if first == "entrance" else first, 0))
    return 1.0


def scale(config: OptimizerConfig) -> optax.GradientTransformation:
    """Multiplies updates by `factors`."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda u, f: u * jnp.asarray(f, u.dtype), updates, factors(config, updates)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
