"""MovieLens 1M as the sequential benchmark has it: `ml-1m.txt` holds 'user item' lines, both from 1, each user's in order of time.

`movies.dat`, `users.dat` and the two `sas_to_original_*.txt` maps (benchmark number, MovieLens number) add titles, genres and who the
users are, where they lie beside it. The times are lost: the running number of a user's event stands for it.
Facts about the films come from `kg.txt` where it lies there too, or in a folder ml1m_kg beside (see ml1m_graph).
"""

from __future__ import annotations

import pathlib

import numpy as np

from rgjax.data.interactions import Catalogue, Interactions, build
from rgjax.data.shops import ml1m_graph
from rgjax.data.shops.common import Found, Options
from rgjax.errors import UserError

AGES = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}
GENDERS = {"F": "female", "M": "male"}


def load(folder: pathlib.Path, told: Options) -> Found:
    """Nothing is dropped, and nothing can lie in the future. Raises UserError naming the file or line that is missing or malformed."""
    return Found(read(folder))


def read(folder: pathlib.Path) -> Interactions:
    """Raises UserError naming the file or line that is missing or malformed."""
    path = folder / "ml-1m.txt" if folder.is_dir() else folder
    pairs = _pairs(path)
    users, user = np.unique(pairs[:, 0], return_inverse=True)
    items, item = np.unique(pairs[:, 1], return_inverse=True)
    order = np.argsort(user, kind="stable")
    time = np.empty(len(pairs), np.int64)
    time[order] = np.arange(len(pairs)) - np.searchsorted(user[order], user[order])
    original = _map(path.parent, "sas_to_original_items.txt")
    titles, genres = _movies(path.parent, items, original)
    catalogue = Catalogue([str(i) for i in items], titles, [{"genre": g} if g else {} for g in genres])
    profiles = _profiles(path.parent, users)
    return build([str(u) for u in users], catalogue, user, item, time, events=("rated",), profiles=profiles, **_facts(path.parent, items, original))


def _pairs(path: pathlib.Path) -> np.ndarray:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} is missing or no text; the layout ml1m needs its 'user item' lines.") from None
    found = np.zeros((len(lines), 2), np.int64)
    count = 0
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or not all(c.isdecimal() and int(c) > 0 for c in cells):
            raise UserError(f"{path}, line {number} is not 'user item', two numbers from 1; mend it.")
        found[count] = int(cells[0]), int(cells[1])
        count += 1
    return found[:count]


def _map(folder: pathlib.Path, name: str) -> dict[int, str]:
    path = folder / name
    if not path.is_file():
        return {}
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {int(cells[0]): cells[1] for cells in rows if len(cells) == 2 and cells[0].isdecimal()}


def _table(folder: pathlib.Path, name: str) -> dict[str, list[str]]:
    path = folder / name
    rows = (line.split("::") for line in path.read_text(encoding="latin-1").splitlines()) if path.is_file() else ()
    return {cells[0]: cells[1:] for cells in rows}


def _facts(folder: pathlib.Path, items: np.ndarray, original: dict[int, str]) -> dict:
    place = ml1m_graph.find(folder)
    if place is None:
        return {}
    if not original:
        raise UserError(f"{place} holds facts about films, but {folder} no sas_to_original_items.txt to tell which; add it or move kg.txt away.")
    return ml1m_graph.read(place, {original.get(int(item), f"unknown {item}"): n for n, item in enumerate(items)})


def _movies(folder: pathlib.Path, items: np.ndarray, original: dict[int, str]) -> tuple[list[str], list[list[str]]]:
    movies = _table(folder, "movies.dat")
    rows = [movies.get(original.get(int(i), ""), ["", ""]) for i in items]
    return [row[0] for row in rows], [[g for g in row[1].split("|") if g] for row in rows]


def _profiles(folder: pathlib.Path, users: np.ndarray) -> list[dict]:
    original, table = _map(folder, "sas_to_original_users.txt"), _table(folder, "users.dat")
    rows = [table.get(original.get(int(u), "")) for u in users]
    return [{"gender": GENDERS.get(r[0], r[0]), "age": AGES.get(r[1], r[1])} if r else {} for r in rows]
