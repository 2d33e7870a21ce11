"""What every module of a model gives out, and what flows back into it: whether it is finite, and how large."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx


@dataclasses.dataclass
class Probe:
    """One array that a module gave out; nan where nothing flowed back to it."""

    module: str
    value: float = float("nan")  # largest magnitude, not finite where any entry is not
    gradient: float = float("nan")
    reached: bool = False  # by a gradient


@contextlib.contextmanager
def probing() -> Iterator[list[Probe]]:
    """Inside, each call of an rgjax module that is traced adds probes, in the order of computation; running the program fills them."""
    probes: list[Probe] = []
    open_modules: list[tuple[str, nnx.Module, collections.Counter]] = []
    kept = {cls: cls.__call__ for cls in _modules(nnx.Module) if "__call__" in vars(cls)}

    def wrapped(call, module, *args, **kwargs):
        name = _name(open_modules, module)
        open_modules.append((name, module, collections.Counter()))
        try:
            out = call(module, *args, **kwargs)
        finally:
            open_modules.pop()
        return jax.tree.map(lambda x: _watched(probes, name, x), out)

    def method(call):
        return functools.wraps(call)(lambda module, *args, **kwargs: wrapped(call, module, *args, **kwargs))

    for cls, call in kept.items():
        cls.__call__ = method(call)
    try:
        yield probes
    finally:
        for cls, call in kept.items():
            cls.__call__ = call


def _modules(cls) -> set[type]:
    found = {sub for sub in cls.__subclasses__() if sub.__module__.startswith("rgjax.")}
    return found.union(*(_modules(sub) for sub in found))


def _name(open_modules: list, module: nnx.Module) -> str:
    """The path of attributes to a module; one that its parent made for the call goes by its kind and a number."""
    if not open_modules:
        return "model"
    above, parent, counts = open_modules[-1]
    own = next((name for name, value in vars(parent).items() if value is module), "")
    if not own:
        kind = type(module).__name__.lower()
        own = f"{kind}[{counts[kind]}]"
        counts[kind] += 1
    return own if above == "model" else f"{above}.{own}"


def _watched(probes: list[Probe], name: str, x):
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    probe = Probe(name)
    probes.append(probe)

    def seen(value) -> None:
        probe.value = float(value)

    def flowed(value) -> None:
        probe.gradient, probe.reached = float(value), True

    @jax.custom_vjp
    def through(x):
        jax.debug.callback(seen, _size(x))
        return x

    def forward(x):
        return through(x), None

    def backward(_, gradient):
        jax.debug.callback(flowed, _size(gradient))
        return (gradient,)

    through.defvjp(forward, backward)
    return through(x)


def _size(x: jax.Array) -> jax.Array:
    """The largest magnitude; nan where an entry is nan, which a maximum might lose."""
    x = x.astype(jnp.float32)
    return jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, jnp.max(jnp.abs(x)))
