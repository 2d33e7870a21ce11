"""The table of the benchmark on real texts: what real ones score, then rows by seed, kept as they are done."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from rgjax.config import AdversarialConfig, BenchConfig, CaptionsConfig, DiscriminatorConfig, to_json
from rgjax.tasks.text_gans import results
from rgjax.tasks.text_gans.captions import COMPARED, Bench, Split, Text, compared, distance, read, row_length, split
from rgjax.tasks.text_gans.results import Kept

COLUMNS = (*COMPARED, "distance", "nll_test")


def evaluate(
    config: BenchConfig, gan: AdversarialConfig, judge: DiscriminatorConfig, captions: CaptionsConfig, output: str, show: Callable[[int, int], None]
) -> tuple[dict, str]:
    """(REAL, TRAIN, then row -> means over the seeds of `COLUMNS` with their `spread` and the `seeds` one by one, a table).

    With a folder `output`, captions.json there has all rows, and what it has already is not computed again. Raises UserError for unknown rows,
    options that contradict each other, texts that can't be used, and a folder of another benchmark or of other texts.
    """
    found = read(captions.captions)
    texts = split(found)
    rows = results.checked(config, gan, judge, row_length(texts.train, captions.caption_length))
    given = {**to_json(config), **to_json(captions), **to_json(gan), **to_json(judge), "captions": _digest(found)}
    kept = Kept.open(output, "captions.json", given, {"sizes": dict(zip(Split._fields, map(len, texts), strict=True)), "real": _real(texts)})
    results.measure(kept, rows, config.seeds, lambda: Bench(config, gan, judge, captions, texts), show)
    result = kept.facts["real"] | kept.rows(rows, config.seeds, COLUMNS)
    head = f"{len(texts.val):,} texts against {len(texts.test):,} test texts, nll_test in nats per token; mean (standard deviation) over seeds"
    return result | {"captions": captions.captions, "sizes": kept.facts["sizes"]}, results.table(head, result, COLUMNS)


def _real(texts: Split) -> dict[str, dict]:
    """REAL: the validation texts as if they had been written. TRAIN: as many training texts, what copying would score."""
    scores = {"REAL": compared(texts.val, texts.test), "TRAIN": compared(texts.train[: len(texts.val)], texts.test)}
    found = {}
    for name, one in scores.items():
        values = one | {"distance": distance(one, scores["REAL"])}
        found[name] = values | {"spread": dict.fromkeys(values, 0.0), "seeds": [values]}
    return found


def _digest(texts: list[Text]) -> str:
    return hashlib.sha256("\n".join(map(" ".join, texts)).encode()).hexdigest()
