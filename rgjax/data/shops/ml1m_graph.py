"""Facts about the films of MovieLens 1M: `kg.txt` holds 'entity relation entity' lines, `item_index2entity_id.txt` 'film entity' lines.

Entities are anonymous numbers. The films are the numbers of MovieLens itself, not those of the sequential benchmark: read so, 85 % of the
films that share one entity of the relation film.film.genre are Horror, and 98 % of those of another Documentary; read as the benchmark's,
no entity has more of a genre than the catalogue (Drama 0.3 to 0.4 throughout).
"""

from __future__ import annotations

import pathlib

import numpy as np

from rgjax.errors import UserError

_FACTS, _FILMS = "kg.txt", "item_index2entity_id.txt"


def find(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder with the two files: `folder` itself or 'ml1m_kg' beside it; None where there is neither."""
    return next((f for f in (folder, folder.resolve().parent / "ml1m_kg") if (f / _FACTS).is_file()), None)


def read(folder: pathlib.Path, numbers: dict[str, int]) -> dict:
    """`triples` int32 [N, 3], `entities` and `relations` for Interactions; `numbers` maps MovieLens ids to item numbers.

    Films that are no item are entities like any other; facts without any item at either end stay too, as they link others. Raises
    UserError naming the file or line that is missing or malformed.
    """
    films = {row[1]: numbers[row[0]] for row in _rows(folder / _FILMS, 2) if row[0] in numbers}
    count, entities, relations, triples = len(numbers), {}, {}, []
    for head, relation, tail in _rows(folder / _FACTS, 3):
        ends = [films[e] if e in films else count + entities.setdefault(e, len(entities)) for e in (head, tail)]
        triples.append((ends[0], relations.setdefault(relation, len(relations)), ends[1]))
    found = np.array(triples, np.int32).reshape(-1, 3)
    return {"triples": found, "entities": [f"entity {e}" for e in entities], "relations": list(relations)}


def _rows(path: pathlib.Path, width: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} is missing or no text; copy it again, or take {_FACTS} away to go without facts.") from None
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, cells in rows:
        if len(cells) != width or not (cells[0].isdecimal() and cells[-1].isdecimal()):
            what = "'film entity', two numbers" if width == 2 else "'entity relation entity', a number at either end"
            raise UserError(f"{path}, line {number} is not {what}; mend it.")
    return [cells for _, cells in rows]
