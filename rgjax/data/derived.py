"""Control codes derived from the words of the reasons: emotion and topic, say, for data that names neither."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections import Counter

from rgjax.data import derived_words, words
from rgjax.data.records import Controls
from rgjax.errors import UserError

BUILTIN = "builtin"
_FORM = '{"topic": {"price": ["cheap", "便宜"], "design": ["elegant", "外观"]}}'


@dataclasses.dataclass(frozen=True)
class WordCodes:
    """Code name -> value -> its words; a text has the value most of whose words it names, the first of several, or none."""

    lists: dict[str, dict[str, list[str]]]

    @classmethod
    def open(cls, path: str, declared: Controls, flag: str = "derive_words") -> WordCodes:
        """From a JSON file, or the built-in lists; raises UserError where it is malformed or contradicts the codes that the data declare."""
        lists = derived_words.LISTS if path == BUILTIN else _read(path, flag)
        for name, values in lists.items():
            surplus = sorted(set(values) - set(declared.get(name, values)))
            if surplus:
                raise UserError(
                    f"--{flag}={path} gives '{name}' the value '{surplus[0]}', and the data declare {', '.join(declared[name])}; use these."
                )
        return cls(lists)

    @property
    def controls(self) -> dict[str, list[str]]:
        """Names and values of the codes."""
        return {name: list(values) for name, values in self.lists.items()}

    def of(self, reason: str) -> dict[str, str]:
        """The values of one clean text; a code of which it names no word is left out."""
        found = {}
        for name, values in self.lists.items():
            named = {value: len(listed) - len(words.missing(reason, listed)) for value, listed in values.items()}
            best = max(named, key=named.get)
            found |= {name: best} if named[best] else {}
        return found


@dataclasses.dataclass
class Agreement:
    """How often words gave each code a value, and how well that agrees with the codes that examples had of their own."""

    codes: WordCodes
    given: Counter = dataclasses.field(default_factory=Counter)  # of (code, value): how many examples got it from their words
    counts: Counter = dataclasses.field(default_factory=Counter)  # of (code, what became of an example)

    def add(self, derived: dict[str, str], own: dict[str, str]) -> None:
        """One kept example: what its words say, and its own codes."""
        for name in self.codes.lists:
            value, label = derived.get(name, ""), own.get(name, "")
            self.given.update([(name, value)] if value and not label else [])
            self.counts.update([(name, "none")] if not value and not label else [])
            self.counts.update([(name, "labelled")] if label else [])
            self.counts.update([(name, "judged")] if label and value else [])
            self.counts.update([(name, "right")] if label and label == value else [])

    def to_json(self) -> dict[str, dict]:
        """For dataset.json: the lists, how many examples each value was given to, how many got `none` or `kept_own`, and on those that had a
        code of their own how many of them the words judge (`coverage`) and rightly (`accuracy`, of those judged); None where none had one."""
        found = {}
        for name, values in self.codes.lists.items():
            count = lambda what, name=name: self.counts[name, what]
            share = lambda a, b: round(a / b, 4) if b else None
            measured = {"labelled": count("labelled"), "coverage": share(count("judged"), count("labelled"))}
            measured["accuracy"] = share(count("right"), count("judged"))
            given = {value: self.given[name, value] for value in values}
            others = {"none": count("none"), "kept_own": count("labelled")}
            found[name] = {"how": "words", "given": given} | others | {"measured": measured, "words": values}
        return found


def nameable(name: str) -> bool:
    """Whether lists may have a code or value of this name."""
    return bool(re.fullmatch(r"[^=|;,<>\s]+", name))


def _read(path: str, flag: str) -> dict:
    try:
        lists = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"--{flag}={path} is no readable JSON file of word lists; write one like {_FORM}, or give '{BUILTIN}'.") from None
    filled = lambda x, kind: type(x) is kind and len(x) > 0
    right = filled(lists, dict) and all(filled(values, dict) for values in lists.values())
    right = right and all(filled(ws, list) and all(type(w) is str and w.strip() for w in ws) for vs in lists.values() for ws in vs.values())
    names = [n for name, values in lists.items() for n in (name, *values)] if right else [""]
    if not all(map(nameable, names)):
        raise UserError(f"--{flag}={path} is not of the form {_FORM}, names without spaces or signs; mend it.")
    return lists
