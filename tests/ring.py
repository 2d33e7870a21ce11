"""A small shop whose next items follow a rule, for tests of ranking."""

import pathlib

import numpy as np

from rgjax.data.interactions import Catalogue, Interactions, build

ITEMS = 24


def following(users: int = 120, length: int = 14, seed: int = 0) -> Interactions:
    """Users who step through a ring of items, mostly by 1 and now and then anywhere: the last item tells the next, popularity does not."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(rng.integers(ITEMS))
        for step in range(int(rng.integers(5, length))):
            rows.append((user, item, 1000 * user + 60 * step))
            item = (item + 1) % ITEMS if rng.random() < 0.9 else int(rng.integers(ITEMS))
    user, item, time = np.array(rows).T
    genres = [{"genre": ["even" if i % 2 == 0 else "odd"]} for i in range(ITEMS)]
    catalogue = Catalogue([f"i{i}" for i in range(ITEMS)], [f"Item {i}" for i in range(ITEMS)], genres)
    price = 1.0 + item.astype(np.float32)
    return build([f"u{u}" for u in range(users)], catalogue, user, item, time, rating=1 + item % 5, price=price)


def ml1m_folder(folder: pathlib.Path, data: Interactions) -> pathlib.Path:
    """The same as a folder in the layout ml1m; numbers start at 1 there."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{u + 1} {i + 1}\n" for u, i in zip(data.user, data.item, strict=True))
    (folder / "ml-1m.txt").write_text(lines)
    (folder / "sas_to_original_items.txt").write_text("".join(f"{i + 1} {i + 101}\n" for i in range(ITEMS)))
    (folder / "movies.dat").write_text("".join(f"{i + 101}::Film {i} (1990)::{'Drama' if i % 2 else 'War'}\n" for i in range(ITEMS)), "latin-1")
    return folder
