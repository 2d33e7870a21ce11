"""Nested dicts of arrays, addressed by dotted paths as 'decoder.blocks.attention.wq'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


def flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf) of every leaf."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def nested(leaves: Iterable[tuple[str, Any]]) -> dict:
    """The inverse of `flat`."""
    tree: dict = {}
    for path, leaf in leaves:
        put(tree, path, leaf)
    return tree


def at(tree: dict, path: str):
    """What lies at a path, or None."""
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def put(tree: dict, path: str, value) -> None:
    """Sets what lies at a path, making the dicts on the way."""
    *parents, name = path.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[name] = value


def divide(tree: dict, chosen: Callable[[str], bool]) -> tuple[dict, dict]:
    """(leaves whose path is chosen, the others), each nested as before."""
    leaves = list(flat(tree))
    return nested(leaf for leaf in leaves if chosen(leaf[0])), nested(leaf for leaf in leaves if not chosen(leaf[0]))


def join(first: dict, second: dict) -> dict:
    """Both trees in one; they share no leaf."""
    return nested([*flat(first), *flat(second)])
