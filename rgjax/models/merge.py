"""An adapter worked into the weights it changes, and taken out again."""

from __future__ import annotations

import jax

from rgjax import trees
from rgjax.errors import UserError
from rgjax.models.adapted import PREPENDED, AdaptedFactory, bias_path, install, parent_of, targets

WITHOUT = ("prefix", "bottleneck", *PREPENDED)  # methods that are no change of weights


def apart(factory) -> str:
    """The kind of a factory's adapter if that is no change of weights, else ''."""
    kind = factory.adapter.adapter if isinstance(factory, AdaptedFactory) else ""
    return kind if kind in WITHOUT else ""


def merged(factory: AdaptedFactory, weights: dict) -> dict:
    """The model's own weights with the adapter worked in; raises UserError for a kind that is no change of weights."""
    kind = factory.adapter.adapter
    if apart(factory):
        further = "it is written alone, by --workdir=RUN --adapter_only" if kind != "vectors" else "its run writes with launch.generate"
        raise UserError(f"An adapter of kind '{kind}' can't be merged into the weights; {further}.")
    own = {name: value for name, value in weights.items() if name != "adapter"}
    paths = [path for path, _ in targets(factory.base, factory.adapter)]
    if kind == "ia3":
        paths += [p for p in map(bias_path, paths) if trees.at(own, p) is not None]

    @jax.jit
    def work(weights: dict) -> dict:
        model = factory.base.model({name: value for name, value in weights.items() if name != "adapter"})
        install(model, factory, weights["adapter"])
        wrappers = {path: getattr(*parent_of(model, path)) for path in paths}
        return {path: jax.vmap(lambda wrapper: wrapper.dense())(wrapper) for path, wrapper in wrappers.items()}

    return trees.nested([*trees.flat(own), *work(weights).items()])


def unmerged(factory: AdaptedFactory, own: dict, adapter: dict) -> dict:
    """The model's weights before `adapter` was worked into `own`, to rounding.

    Raises UserError as `merged`, and for DoRA, whose merged columns no longer tell the length they had.
    """
    if factory.adapter.dora:
        raise UserError("A DoRA adapter can't be taken out of merged weights; keep the model it was trained on.")
    undo = {"l": lambda x: 1 / x, "b": lambda x: -x}  # a scale is divided away, a term subtracted
    inverse = trees.nested((path, undo.get(path.rsplit(".", 1)[1], lambda x: x)(leaf)) for path, leaf in trees.flat(adapter))
    return merged(factory, {**own, "adapter": inverse})
