"""Calls of a jitted step, watched: what made one compile again, and what it fetched from the host unasked."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import jax

NAMES = ("state", "fixed", "batch")  # of a training step's arguments


def signature(args: tuple) -> dict[str, str]:
    """What compilation depends on, of every array among the arguments: type, shape and where it lies, by path."""
    found = {}
    for name, tree in zip(NAMES, args, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[name + jax.tree_util.keystr(path)] = _told(leaf)
    return found


def _told(leaf: Any) -> str:
    shape = f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else type(leaf).__name__
    if not isinstance(leaf, jax.Array):
        return f"{shape} on the host"
    where = leaf.sharding
    if isinstance(where, jax.sharding.NamedSharding):
        return f"{shape} by {_spec(where)} over {dict(where.mesh.shape)}"
    return f"{shape} on {', '.join(sorted(map(str, where.device_set)))}"


def _spec(where: jax.sharding.NamedSharding) -> str:
    """The mesh axes of each array axis, without those that spread nothing: XLA gives back a sharding that is the same in other words."""
    named = [part if isinstance(part, tuple) else (part,) for part in where.spec]
    spread = ["+".join(a for a in part if a and where.mesh.shape[a] > 1) or "-" for part in named]
    while spread and spread[-1] == "-":
        spread.pop()
    return f"({', '.join(spread)})"


def changes(now: dict[str, str], before: list[dict[str, str]]) -> list[str]:
    """How a signature differs from the nearest of earlier ones, an argument a line; [] where it is one of them, or the first."""
    differing = [[path for path in sorted(now | old) if now.get(path) != old.get(path)] for old in before]
    if not differing:
        return []
    nearest = min(range(len(differing)), key=lambda k: len(differing[k]))
    old = before[nearest]
    return [f"{path}: {_shortened(old.get(path, 'nothing'), now.get(path, 'nothing'))}" for path in differing[nearest]]


def _shortened(old: str, new: str) -> str:
    """Both, without where they lie where that is the same."""
    (shape, *place), (new_shape, *new_place) = re.split("(?= by | on )", old, maxsplit=1), re.split("(?= by | on )", new, maxsplit=1)
    return f"{shape} before, now {new_shape}" if place == new_place else f"{old} before, now {new}"


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Fills a list with what JAX says meanwhile of tracing and compiling; nothing of it is shown."""
    told: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("jax")
    handler.emit = lambda record: told.append(record.getMessage())
    before = (logger.handlers, logger.propagate, logger.level)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)
    try:
        with jax.log_compiles(), jax.explain_cache_misses():
            yield told
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


def watched(step, state, fixed, batches: Iterable) -> Iterator[dict]:
    """Takes a step on each batch; yields its `number`, the programs `compiled` on the way, which arguments `changed` since an earlier
    compilation, JAX's own `reason`, and the `transfers` from or to the host that nobody asked for.
    """
    known: list[dict[str, str]] = []
    for number, batch in enumerate(batches, 1):
        now = signature((state, fixed, batch))
        transfers = [f"{path}: {text}" for path, text in now.items() if text.endswith("on the host")]
        with compilations() as told:
            try:
                with jax.transfer_guard("disallow"):
                    state, _ = jax.block_until_ready(step(state, fixed, batch))
            except jax.errors.JaxRuntimeError as error:
                if "Disallowed" not in str(error):
                    raise
                transfers.append(_place(error))
                state, _ = jax.block_until_ready(step(state, fixed, batch))  # refused before it took the state
        compiled = [found[1] for text in told if (found := re.match(r"Compiling (\S+)", text))]
        reason = next((text for text in told if text.startswith("TRACING CACHE MISS") and "never seen function" not in text), "")
        found = {"number": number, "compiled": compiled, "changed": changes(now, known) if compiled and known else [], "transfers": transfers}
        if compiled:
            known.append(now)
        yield found | {"reason": " ".join(reason.split())}


def _place(error: Exception) -> str:
    """A refused transfer: of what, and the line of ours that it happened in."""
    ours = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename and not f.filename.endswith("watch.py")]
    what = re.sub(r"^\w+: ", "", str(error).splitlines()[0])
    return f"{what} in {ours[-1].name} ({ours[-1].filename}:{ours[-1].lineno})" if ours else what


def verdict(found: list[dict]) -> list[str]:
    """Sentences about compilations after the first step, and about transfers; [] when there is nothing to say."""
    lines = []
    for one in found:
        if one["compiled"] and one["number"] > 1:
            why = "; ".join(one["changed"][:3]) or one["reason"] or "its arguments are as before; something outside them changed"
            more = f" (and {len(one['changed']) - 3} more)" if len(one["changed"]) > 3 else ""
            lines.append(f"step {one['number']} compiled {', '.join(dict.fromkeys(one['compiled']))} again: {why}{more}")
        lines += [f"step {one['number']} transfers implicitly: {text}" for text in one["transfers"]]
    return lines
