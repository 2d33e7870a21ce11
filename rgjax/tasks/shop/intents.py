"""The intent of a bundle, as its reason: the shop's own, one written by a trained generator from what it holds, or a template."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rgjax.config import DecodeConfig, RecommendConfig
from rgjax.data.bundles import Bundles
from rgjax.data.cleaning import clean_example
from rgjax.data.injected import without
from rgjax.data.interactions import Catalogue
from rgjax.data.readers.bundle_intents import SIMILAR, example
from rgjax.data.similar_bundles import SimilarBundles
from rgjax.decode.polish import polish
from rgjax.metrics import grounding, language
from rgjax.tasks import decoding
from rgjax.tasks import run as run_lib
from rgjax.tasks.reason import ReasonWriter


@dataclasses.dataclass(frozen=True, eq=False)
class Intents:
    """`writer` is None where there is only the template."""

    config: RecommendConfig
    writer: ReasonWriter | None
    items: Catalogue
    similar: SimilarBundles

    @classmethod
    def open(cls, config: RecommendConfig, decode: DecodeConfig, explicit: set[str], items: Catalogue, bundles: Bundles) -> Intents:
        """Opens --reasons; raises UserError when it is no run of the reason task."""
        similar = SimilarBundles(items, bundles)
        if not config.reasons:
            return cls(config, None, items, similar)
        run = run_lib.Run.open(config.reasons)
        return cls(config, run.task.writer(run.params, decoding.configured(run.facts, decode, explicit)), items, similar)

    def read(self, value):
        """A text of the shop's, or a dict or list of such, as it is read and shown: by --injected without what addresses the model."""
        return without(value) if self.config.injected == "strip" else value

    def of(self, bundles: Sequence[tuple[Sequence[int], str]]) -> list[dict[str, str]]:
        """For bundles given as (item numbers, the intent that is written already or ''): "reason" and "reason_from" ('shop', 'model' or 'template').

        A text of the model that is empty once polished, or quotes what no title or attribute holds, gives way to the template.
        """
        read, items, unwritten = self.read, self.items, [members for members, written in bundles if not written]
        alike = self.similar.intents(unwritten, SIMILAR) if self.writer and unwritten else []
        asked = [clean_example(read(example(members, items, "bundle", intents))) for members, intents in zip(unwritten, alike, strict=bool(alike))]
        texts = iter(zip(asked, self.writer.write(asked), strict=True)) if self.writer and asked else None
        found = []
        for members, written in bundles:
            titles = [read(items.titles[i]) or items.ids[i] for i in members]
            text, source = (read(written), "shop") if written else ("", "template")
            if texts and not written:
                described, (spoken, *_) = next(texts)
                text, source = self._polished(spoken, described, titles), "model"
            found.append({"reason": text, "reason_from": source} if text else {"reason": _template(titles), "reason_from": "template"})
        return found

    def _polished(self, text: str, described: dict, titles: list[str]) -> str:
        banned = [word.strip() for word in self.config.banned.split(",") if word.strip()]
        text = polish(text, banned, self.config.reason_words, titles)
        return "" if grounding.invented_spans(described, text)[1] else text


def _template(titles: Sequence[str]) -> str:
    if language.detect(titles) == "zh":
        return f"《{'》《'.join(titles)}》搭配使用。"
    return ", ".join(f'"{title}"' for title in titles[:-1]) + f' and "{titles[-1]}" go together.'
