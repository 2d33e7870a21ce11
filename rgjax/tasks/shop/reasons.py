"""The reason beside each recommendation: written by a trained generator from the evidence, checked, or else filled into a template."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rgjax.config import DecodeConfig, RecommendConfig
from rgjax.data.cleaning import clean_example
from rgjax.data.injected import without
from rgjax.decode.polish import polish, template
from rgjax.errors import UserError
from rgjax.metrics import grounding, language
from rgjax.rank import reason_score
from rgjax.tasks import decoding
from rgjax.tasks import run as run_lib
from rgjax.tasks.reason import ReasonWriter

SHOWN_ATTRIBUTES = 3
_FROM_THE_SHOP = ("title", "attributes", "shared", "neighbours")


@dataclasses.dataclass(frozen=True, eq=False)
class Reasons:
    """`writer` is None where there is only the template."""

    config: RecommendConfig
    writer: ReasonWriter | None
    controls: dict[str, list[str]]

    @classmethod
    def open(cls, config: RecommendConfig, decode: DecodeConfig, explicit: set[str]) -> Reasons:
        """Opens --reasons; raises UserError when it is no run of the reason task."""
        if not config.reasons:
            return cls(config, None, {})
        run = run_lib.Run.open(config.reasons)
        return cls(config, run.task.writer(run.params, decoding.configured(run.facts, decode, explicit)), run.controls)

    def written(self, lines: list[dict], first: int) -> list[dict]:
        """The lines with "reason", "reason_from" ('model' or 'template') and "reason_names" (titles of the evidence it names) in each item, and with
        a writer "reason" among its parts: how well the text stands for it in its list (`reason_score`), 0 for a template.

        A written reason that is empty once polished, quotes what is in no title or attribute, or is the same as one for an item before it in
        the list gives way to the template. Raises UserError for an undeclared control code.
        """
        asked = [(line, found) for line in lines for found in line["recommendations"]]
        if self.config.injected == "strip":
            for entry in [entry for _, found in asked for entry in (found, *found["evidence"])]:
                entry |= {name: without(entry[name]) for name in _FROM_THE_SHOP if name in entry}
        texts: list[str] = [""] * len(asked)
        if self.writer and asked:
            examples = [self._example(line, found) for line, found in asked]
            texts = [reasons[0] for reasons in self.writer.write(examples, first * self.config.top)]
        banned = [word.strip() for word in self.config.banned.split(",") if word.strip()]
        for line in lines:
            line.pop("control")
        said: dict[int, set[str]] = {}
        for (line, found), text in zip(asked, texts, strict=True):
            before = said.setdefault(id(line), set())
            titles = [found["title"], *(e["title"] for e in found["evidence"])]
            text = polish(text, banned, self.config.reason_words, titles)
            if not self._holds(text, line, found) or text in before:
                text, source = self._template(found), "template"
            else:
                source = "model"
            before.add(text)
            found["reason_source"] = reason_score.source(found, found["evidence"])
            titles = [e["title"] for e in found["evidence"] if e["title"]]
            found |= {"reason": text, "reason_from": source, "reason_names": sorted(grounding.mentioned(text, titles))}
            found["evidence"] = [
                {name: e[name] for name in ("item", "title", "weight", "shared")} for e in found["evidence"][: self.config.evidence_events]
            ]
        for line in lines:
            _score(line["recommendations"], bool(self.writer))
        return lines

    def _example(self, line: dict, found: dict) -> dict:
        """What the generator reads: the events with most evidence in order of time, and the item."""
        strongest = sorted(found["evidence"][: self.config.reason_history], key=lambda e: e["place"])
        history = [{"item": e["item"], "title": e["title"], "attributes": e["attributes"]} for e in strongest if e["title"]]
        item = {"id": found["item"], "title": found["title"] or found["item"], "attributes": found["attributes"]}
        for name, value in line["control"].items():
            if value not in self.controls.get(name, ()):
                known = "; ".join(f"{n}: {', '.join(v)}" for n, v in self.controls.items()) or "none are declared"
                raise UserError(f"--input names the control code {name}={value}, which --reasons does not know; its codes: {known}.")
        return clean_example({"user": {"id": line["user"]} if line["user"] else {}, "history": history, "item": item, "control": line["control"]})

    def _holds(self, text: str, line: dict, found: dict) -> bool:
        """Whether a text is there and every quoted span of it is in a title or attribute of what the generator was given."""
        if not text:
            return False
        _, invented, _ = grounding.invented_spans(self._example(line | {"control": {}}, found), text)
        return not invented

    def _template(self, found: dict) -> str:
        title = found["title"] or found["item"]
        named = [e["title"] for e in found["evidence"][: self.config.evidence_events] if e["title"]]
        values: Sequence[str] = [str(v) for value in found["attributes"].values() for v in (value if isinstance(value, list) else [value])]
        return template(title, named, values[:SHOWN_ATTRIBUTES], language.detect([title]) == "zh")


def _score(listed: list[dict], written: bool) -> None:
    """Puts how well each reason stands for its item among the parts, and takes away what it was written from."""
    sources = [found.pop("reason_source") for found in listed]
    texts = [found["reason"] if found["reason_from"] == "model" else "" for found in listed]
    if written:
        for found, score in zip(listed, reason_score.grounded(texts, sources), strict=True):
            found["parts"] = found["parts"] | {"reason": round(score, 4)}
