"""What of a model is trained, what stays as it is, and what else pulls on the trained part."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import jax

from rgjax import trees
from rgjax.config import NO_ADAPTER, AdapterConfig
from rgjax.errors import UserError

ADAPTER = "adapter."  # where an adapter's parameters lie, beside the model's own


def chooser(config: AdapterConfig) -> Callable[[str], bool]:
    """Whether the parameter at a dotted path is trained: all, all but --freeze, or the adapter and --unfreeze.

    Raises UserError when the flags contradict each other or are no patterns.
    """
    flag = "freeze" if config.adapter == "none" else "unfreeze"
    other = getattr(config, {"freeze": "unfreeze", "unfreeze": "freeze"}[flag])
    if other:
        why = "everything is trained without --adapter" if flag == "freeze" else "an adapter's model is frozen already"
        raise UserError(f"--{'unfreeze' if flag == 'freeze' else 'freeze'}={other} means nothing here ({why}); leave it out.")
    text = getattr(config, flag)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"--{flag}={text} is no regular expression ({error}); write one, as 'embedding'.") from None
    named = lambda path: bool(text) and bool(pattern.search(path))
    if flag == "freeze":
        return lambda path: not named(path)
    return lambda path: path.startswith(ADAPTER) or named(path)


def check(config: AdapterConfig, params: dict, steps: int) -> None:
    """Raises UserError when --freeze or --unfreeze names no parameter, or all of them, and when --base_from is beyond the `steps`."""
    own = [path for path, _ in trees.flat(params) if not path.startswith(ADAPTER)]
    chosen, flag = chooser(config), "freeze" if config.adapter == "none" else "unfreeze"
    text = getattr(config, flag)
    trained = [path for path in own if chosen(path)]
    if text and len(trained) == (len(own) if flag == "freeze" else 0):
        raise UserError(f"--{flag}={text} matches no parameter; they are named like {own[0]} and {own[-1]}.")
    if not trained and config.adapter == "none":
        raise UserError(f"--freeze={text} leaves nothing to train; narrow it.")
    if config.base_from > steps:
        raise UserError(f"--base_from={config.base_from} is never reached in --steps={steps}; lower it.")
    if config.base_from and not (trained and config.adapter != "none"):
        raise UserError(f"--base_from={config.base_from} delays --unfreeze's parameters and there are none; give --adapter and --unfreeze.")


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a run begins and what it trains.

    `initial()` gives the model's own parameters on the mesh; it is called where there is no checkpoint, and where parts of them are
    not trained. `extras(weights, begins)` gives further fixed arrays for `penalty(trained, fixed)`, which adds to the loss per target
    token; `weights` are all parameters, an adapter's included, and `begins` says that no step was taken yet. `penalty` sums `penalties`.
    """

    config: AdapterConfig = NO_ADAPTER
    initial: Callable[[], dict] | None = None
    extras: Callable[[dict, bool], dict] = lambda weights, begins: {}
    penalties: tuple[Callable[[dict, dict], jax.Array], ...] = ()

    @property
    def trained(self) -> Callable[[str], bool]:
        """As `chooser`."""
        return chooser(self.config)

    @property
    def penalty(self) -> Callable[[dict, dict], jax.Array] | None:
        """The sum of the penalties, or None where there is none."""
        return (lambda trained, fixed: sum(one(trained, fixed) for one in self.penalties)) if self.penalties else None

    @property
    def freezes(self) -> bool:
        """Whether any of the model's own parameters is not trained."""
        return self.config.adapter != "none" or bool(self.config.freeze)


ALL = Tuning()  # everything is trained, from scratch
