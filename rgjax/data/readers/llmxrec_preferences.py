"""Layout 'llmxrec_preferences': the judgements published beside layout 'llmxrec', preference_train.jsonl.

A line holds the question put to a language model, two reasons and which of them people preferred. The question is text; shopper, history
and item are read back from it, so that examples look like those of 'llmxrec'. Reasons were never shown in the other order.
"""

from __future__ import annotations

import re

from rgjax.config import PrepareConfig
from rgjax.data.readers import Source, jsonl, llmxrec, preferences
from rgjax.data.records import Controls, RecordError

_DOMAIN = {"films": "movies", "games": "games", "news": "news"}
_EVENT = re.compile(r"^\d+: (.*)$")
_ATTRIBUTE = re.compile(r"^The (?:class|tags|category|sub category) of the \w+ (?:is|are) (.*?)\.?$")
_SHOPPER = re.compile(r"The age of the customer is (\d+), the gender is (\w+) and the customer's occupation is (.+?)\. ")


def open_source(config: PrepareConfig, controls: Controls, scratch) -> Source:
    """All lines are of one file; --split_by=user keeps a history in one split."""
    return preferences.source(jsonl.named(config.source, {"preference_train.jsonl": "train"}), controls, judgement)


def judgement(line: dict) -> dict:
    """One line as one of layout 'preferences'."""
    both = [jsonl.field(line, name) for name in ("explanation_1", "explanation_2")]
    example = question(jsonl.field(line, "instruction"))
    return preferences.judgement(example | {"reasons": both, "preferred": jsonl.field(line, "preferred", (str, int))})


def question(text: str) -> dict:
    """The example that a question asks about; raises RecordError when it is not put as these are."""
    head, asked, tail = text.partition("with the following title and")
    domain = next((domain for word, domain in _DOMAIN.items() if head.startswith(f"The history {word} ")), "")
    things = _things(head.splitlines()[1:])
    _, _, item = tail.partition(":\n")
    named = _things([f"1: {line}" if i == 0 else line for i, line in enumerate(item.splitlines()[: 2 + (domain == "news")])])
    if not (asked and domain and things and len(named) == 1):
        raise RecordError("'instruction' does not ask as the published questions do")
    shopper = _SHOPPER.search(head)
    user = dict(zip(("age", "gender", "occupation"), (int(shopper[1]), shopper[2], shopper[3]), strict=True)) if shopper else {}
    named[0]["title"] = named[0]["title"].removesuffix(".")
    found = llmxrec.example({"domain": domain, "history": things, "user": user, "item": named[0], "reason": ""})
    return {name: value for name, value in found.items() if name != "reason"}


def _things(lines: list[str]) -> list[dict]:
    """Titles and attributes, as 'llmxrec' has them; the first line that is neither ends them."""
    found: list[dict] = []
    for line in lines:
        if event := _EVENT.match(line):
            found.append({"title": event[1], "attrs": []})
        elif found and (attribute := _ATTRIBUTE.match(line)):
            found[-1]["attrs"].append(attribute[1])
        else:
            break
    return found
