"""Small shops with bundles: one whose bundles follow a rule, as data or as a folder of tables, and random ones."""

import csv
import pathlib

import numpy as np

from rgjax.data import bundles as bundles_lib
from rgjax.data.interactions import Catalogue, build

GROUPS, EACH = 8, 6


def grouped(count: int = 160, seed: int = 0):
    """Bundles of three of a group's items, two bundles of one group per user, whose events repeat them.

    Half of the items say their group, and a bundle's intent does.
    """
    rng = np.random.default_rng(seed)
    group = np.repeat(rng.integers(GROUPS, size=count // 2), 2)
    members = np.stack([g * EACH + rng.choice(EACH, 3, replace=False) for g in group])
    titles = [f"thing {n} {'kind' + str(n // EACH) if n % 2 else ''}".strip() for n in range(GROUPS * EACH)]
    attributes = [{"colour": ["red", "blue", "green"][n % 3], "price": str(n % EACH + 1)} for n in range(GROUPS * EACH)]
    items = Catalogue([f"i{n}" for n in range(GROUPS * EACH)], titles, attributes)
    user, time = np.arange(count) // 2, 1000 + np.arange(count)
    intents = [f"for people of kind{g}" for g in group]
    bundles = bundles_lib.build(
        [f"b{n}" for n in range(count)],
        np.repeat(np.arange(count), 3),
        members.ravel(),
        len(items),
        intents,
        np.stack([user, np.arange(count)], 1),
        time,
    )
    data = build([f"u{n}" for n in range(count // 2)], items, np.repeat(user, 3), members.ravel(), np.repeat(time, 3))
    return data, bundles


def folder(path: pathlib.Path, data, bundles) -> pathlib.Path:
    """The same in the layout 'shop'."""
    path.mkdir(parents=True, exist_ok=True)
    ids, names = data.items.ids, sorted({name for attributes in data.items.attributes for name in attributes})
    tables = {
        "items": [("item", "title", *names)]
        + [(i, t, *(a.get(n) for n in names)) for i, t, a in zip(ids, data.items.titles, data.items.attributes, strict=True)],
        "interactions": [("user", "item", "time")]
        + [(data.users[u], ids[i], t) for u, i, t in zip(data.user, data.item, data.time, strict=True)],
        "bundles": [("bundle", "item", "intent")]
        + [(bundles.ids[b], ids[i], bundles.intents[b]) for b in range(len(bundles)) for i in bundles.members(b)],
        "user_bundles": [("user", "bundle", "time")]
        + [(data.users[u], bundles.ids[b], t) for (u, b), t in zip(bundles.pairs, bundles.time, strict=True)],
    }  # fmt: skip
    for name, rows in tables.items():
        with open(path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return path
