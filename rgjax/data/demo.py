"""The synthetic shop (--layout=demo): seeded, small, and with known truth.

Items have a category, brand, material, look and price; users have latent tastes, from which their histories and candidates are drawn.
A reason names the item, most often the latest bought title of the same category, and what its control codes ask for. DATASET/truth.json
keeps what a real shop never knows: tastes, categories, which users and items only the test split holds, and the lexicons by which
obedience to a control code can be counted. The data is synthetic: scores on it say that the machinery works, not how good it is.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator

from rgjax.config import PrepareConfig
from rgjax.data import demo_words as words
from rgjax.data.readers import Source, in_chunks
from rgjax.data.records import Controls, Row
from rgjax.data.splits import by_hash
from rgjax.errors import UserError

_LANGUAGES = ("en", "zh")
_START = 1_700_000_000  # seconds; all events lie after it
_DAY = 86_400
_COLD_SHARE = 0.1  # of the items; they appear in the test split only
_NAMES_PAST = 0.9  # share of reasons that name a bought title of the item's category, where there is one


@dataclasses.dataclass(frozen=True)
class Item:
    """One product; the paired words are (English, Chinese)."""

    id: str
    category: str
    noun: tuple[str, str]
    material: tuple[str, str]
    brand: tuple[str, str]
    look: tuple[str, str]
    band: str
    price: int

    def title(self, lang: int) -> str:
        """Title in English (0) or Chinese (1)."""
        parts = (self.brand[lang], self.look[lang], self.noun[lang])
        return " ".join(parts) if lang == 0 else "".join(parts)

    def attributes(self, lang: int) -> dict:
        """Attributes in one language, under English names."""
        category = words.CATEGORIES[self.category][lang]
        return {"category": [category], "brand": self.brand[lang], "material": self.material[lang], "price": self.price}


@dataclasses.dataclass(frozen=True)
class User:
    """One shopper: a language, and a liking for each category (sums to 1)."""

    id: str
    lang: int
    tastes: dict[str, float]
    split: str


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """Rows of the shop; users keep to one split, so --split_by=user and --split_by=source agree."""
    if config.split_by not in ("user", "source"):
        raise UserError(f"--split_by={config.split_by} does not go with --layout=demo, whose cold users and items need 'user'.")
    if config.controls:
        raise UserError("--controls does not go with --layout=demo, which declares its own; leave it out.")
    items = make_items(config)
    users = make_users(config)
    cold = {item.id for item in items[: max(1, int(_COLD_SHARE * len(items)))]}
    rows = _rows(config, users, items, cold)
    extras = {"truth.json": _truth(users, items, cold)}
    splits = frozenset(("train", "val", "test"))
    return Source(in_chunks(rows), splits, 0, words.CONTROLS, synthetic=True, extras=extras)


def make_items(config: PrepareConfig) -> list[Item]:
    """The catalogue; no two items share a title in either language."""
    rng = random.Random(f"items {config.seed}")
    kinds = [(c, noun) for c, (_, _, nouns, _) in words.CATEGORIES.items() for noun in nouns]
    faces = list(itertools.product(words.BRANDS, words.LOOKS))
    if config.demo_items > len(kinds) * len(faces):
        raise UserError(
            f"--demo_items={config.demo_items} is too large; the shop has {len(kinds) * len(faces)} different titles."
        )
    chosen = rng.sample(list(itertools.product(kinds, faces)), config.demo_items)
    items = []
    for i, ((category, noun), (brand, look)) in enumerate(chosen):
        band = rng.choice(list(words.BANDS))
        material = rng.choice(words.CATEGORIES[category][3])
        items.append(Item(f"i{i}", category, noun, material, brand, look, band, rng.randint(*words.BANDS[band])))
    return items


def make_users(config: PrepareConfig) -> list[User]:
    """The shoppers; each likes two categories much and the others a little."""
    rng = random.Random(f"users {config.seed}")
    users = []
    for i in range(config.demo_users):
        loved = rng.sample(sorted(words.CATEGORIES), 2)
        weights = {c: (4.0 if c == loved[0] else 3.0 if c == loved[1] else 0.3) for c in sorted(words.CATEGORIES)}
        total = sum(weights.values())
        tastes = {c: round(w / total, 4) for c, w in weights.items()}
        split = by_hash(f"u{i}", config.val_share, config.test_share)
        users.append(User(f"u{i}", rng.randrange(2), tastes, split))
    return users


def _rows(config: PrepareConfig, users: list[User], items: list[Item], cold: set[str]) -> Iterator[Row]:
    rng = random.Random(f"examples {config.seed}")
    warm = [item for item in items if item.id not in cold]
    for n in range(config.demo_examples):
        user = users[n % len(users)]
        example = make_example(rng, user, items if user.split == "test" else warm, n)
        yield Row(example, f"example {n + 1}", user.split)


def make_example(rng: random.Random, user: User, items: list[Item], n: int) -> dict:
    """One visit of `user`: a history and a candidate drawn from the tastes among `items`, control codes and the reason."""
    drawn = _draw(rng, user, items, rng.randint(4, 9))
    item, bought = drawn[0], drawn[1:]
    times = sorted(rng.randrange(_DAY * 300) for _ in bought)
    control = {name: rng.choice(values) for name, values in words.CONTROLS.items()}
    control["language"] = _LANGUAGES[user.lang]
    history = [
        {"item": b.id, "title": b.title(user.lang), "attributes": {"category": b.attributes(user.lang)["category"]}, "event": "purchase",
         "time": _START + t}
        for b, t in zip(bought, times, strict=True)
    ]  # fmt: skip
    return {
        "user": {"id": user.id},
        "history": history,
        "item": {"id": item.id, "title": item.title(user.lang), "attributes": item.attributes(user.lang)},
        "control": control,
        "reason": make_reason(rng, item, bought, control),
    }


def _draw(rng: random.Random, user: User, items: list[Item], count: int) -> list[Item]:
    """`count` different items, likelier the more the user likes their category."""
    # Weighted sampling without replacement (Efraimidis and Spirakis 2006): the largest of u^(1/w).
    keyed = sorted(items, key=lambda item: -(rng.random() ** (1 / user.tastes[item.category])))
    return keyed[:count]


def make_reason(rng: random.Random, item: Item, bought: list[Item], control: dict[str, str]) -> str:
    """A reason for `item` that obeys `control`; names the latest of `bought` in the item's category, if any, nine times in ten."""
    language = control["language"]
    lang = _LANGUAGES.index(language)
    alike = [b for b in bought if b.category == item.category]
    facts = {
        "title": item.title(lang),
        "past": alike[-1].title(lang) if alike else "",
        "category": words.CATEGORIES[item.category][lang],
        "price": item.price,
        "material": item.material[lang],
        "look": item.look[lang].lower(),
        "brand": item.brand[lang],
        "noun": item.noun[lang].lower(),
        "count": len(alike),
        "band": words.BAND_NAMES[item.band][lang],
    }
    parts = [rng.choice(words.OPENINGS[language][control["emotion"]])]
    if rng.random() < _NAMES_PAST:  # without such a purchase it is truly new to the user
        parts.append(rng.choice((words.LINKS if alike else words.NO_LINK)[language]))
    parts.append(rng.choice(words.TOPICS[language][control["topic"]]))
    parts.append("." if lang == 0 else "。")
    if control["style"] == "detailed":
        parts += rng.sample(words.DETAILS[language], rng.randint(1, 2))
    return "".join(parts).format(**facts)


def _truth(users: list[User], items: list[Item], cold: set[str]) -> dict:
    return {
        "synthetic": True,
        "users": {u.id: {"tastes": u.tastes, "language": _LANGUAGES[u.lang], "split": u.split} for u in users},
        "items": {
            i.id: {"category": i.category, "price": i.price, "price_band": i.band, "titles": {"en": i.title(0), "zh": i.title(1)}}
            for i in items
        },
        "cold": {"users": [u.id for u in users if u.split == "test"], "items": sorted(cold)},
        "controls": words.CONTROLS,
        "lexicons": words.LEXICONS,
        "sentences": words.SENTENCES,
    }
