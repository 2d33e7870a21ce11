"""What written reasons are rewarded for, and filtered by: figures of single texts, checked without the model that wrote them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from rgjax.config import RewardConfig
from rgjax.data.dataset import Dataset
from rgjax.data.length_bands import NAME, LengthBands
from rgjax.decode import rerank
from rgjax.errors import UserError
from rgjax.metrics import features, suite
from rgjax.metrics.outside import Ngrams
from rgjax.tasks import judges
from rgjax.tasks.run import Run
from rgjax.tasks.verdicts import Verdicts

Score = Callable[[Sequence[dict], Sequence[str]], Sequence[float]]  # examples, a text for each -> a figure for each
ORDER = 3  # words of a sequence that should not come again


def parse(text: str) -> dict[str, float]:
    """--rewards as {name: number}; raises UserError for what is not understood, an unknown name or one that comes twice."""
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.partition("=")
        if name not in MAKERS:
            raise UserError(f"--rewards has '{name}'; use {', '.join(sorted(MAKERS))}, each as name=number.")
        if name in found:
            raise UserError(f"--rewards has {name} twice; leave one out.")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise UserError(f"--rewards has '{part}'; write {name}=NUMBER.")
    if not found:
        raise UserError("--rewards is missing; name some, as grounding=1,repetition=1.")
    return found


class Rewards:
    """Judges texts by several rewards; `names` and `numbers` (those of --rewards) are in the order of the columns."""

    def __init__(self, config: RewardConfig, dataset: Dataset | Callable[[], Dataset]):
        """Of a dataset, or of what opens one where a reward learns from it; raises UserError for rewards that it can't give."""
        asked = parse(config.rewards)
        if config.discriminator_from and "discriminator" not in asked:
            raise UserError(f"--discriminator_from={config.discriminator_from} judges nothing; add discriminator=1 to --rewards, or leave it out.")
        self.names, self.numbers = list(asked), np.array(list(asked.values()))
        lessons = Lessons(dataset if callable(dataset) else lambda: dataset)
        self.scores: list[Score] = [MAKERS[name](config, lessons) for name in asked]

    @property
    def judged(self) -> dict[str, list[str]]:
        """The control codes that some reward judges, with the values that it knows."""
        return {name: values for score in self.scores for name, values in getattr(score, "judged", {}).items()}

    @property
    def fingerprint(self) -> str:
        """That of the discriminator among the judges, '' without one."""
        return next((score.fingerprint for score in self.scores if isinstance(score, Verdicts)), "")

    def __call__(self, examples: Sequence[dict], texts: Sequence[str]) -> np.ndarray:
        """Float64 [N, K]; raises UserError where one is no number."""
        found_NK = np.array([score(examples, texts) for score in self.scores], float).T.reshape(len(texts), len(self.names))
        if not np.isfinite(found_NK).all():
            n, k = np.argwhere(~np.isfinite(found_NK))[0]
            raise UserError(f"The reward '{self.names[k]}' of the text '{texts[n][:60]}' is {found_NK[n, k]}; leave it out of --rewards, or mend it.")
        return found_NK


def choosing(run: Run, method: str, reward: RewardConfig, folder: str = "") -> Run:
    """The run, which chooses among candidates by the weighted sum of --rewards where the `method` is 'best'; judges learn from its dataset (or the
    copy of it in `folder`). Raises UserError for rewards without that method, and that method without any."""
    if method != "best":
        if reward.rewards or reward.discriminator_from:
            given = f"--rewards={reward.rewards}" if reward.rewards else f"--discriminator_from={reward.discriminator_from}"
            raise UserError(f"{given} chooses nothing with --method={method}; add --method=best, or leave it out.")
        return run
    judge = Rewards(reward, lambda: run.dataset(folder))
    return dataclasses.replace(run, liked=lambda examples, texts: judge(examples, texts) @ judge.numbers)


class Lessons:
    """What rewards learn from, opened and read when one first asks."""

    def __init__(self, opened: Callable[[], Dataset]):
        self._opened = opened

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The dataset."""
        return self._opened()

    @functools.cached_property
    def references(self) -> Sequence[dict]:
        """Its training references that are for rewards; raises UserError where a model wrote them."""
        judges.check(self.dataset, "train")
        return judges.references(self.dataset, "train", judges.FOR_REWARDS)


class Codes:
    """The reward `codes`: of an example's codes that are judged, the mean of how sure the judge is of the value asked for; 1 where none is."""

    def __init__(self, config: RewardConfig, lessons: Lessons):
        examples, dataset = lessons.references, lessons.dataset
        measured = judges.bands(dataset)
        named = {name: values for name, values in dataset.controls.items() if not (name == NAME and measured)}
        self.learned = {name: found for name, values in named.items() if (found := judges.learn(name, values, examples))}
        if not self.learned:
            least = judges.LEAST_TEXTS
            raise UserError(f"--rewards has codes, and {dataset.folder} has no code with two values of {least} references each; leave it out.")
        self.judged = {name: found.values for name, found in self.learned.items()}

    def __call__(self, examples: Sequence[dict], texts: Sequence[str]) -> list[float]:
        """One figure between 0 and 1 for each text."""
        sums, counts = np.zeros(len(texts)), np.zeros(len(texts))
        for name, (judge, values, _) in self.learned.items():
            sure_NC = judge.probabilities(texts)
            for n, example in enumerate(examples):
                if (value := (example.get("control") or {}).get(name)) in values:
                    sums[n] += sure_NC[n, judge.labels.index(value)]
                    counts[n] += 1
        return list(np.where(counts, sums / np.maximum(counts, 1), 1.0))


class Fluency:
    """The reward `fluency`: how likely trigrams of references find the text, the mean log probability of its tokens (at most 0)."""

    def __init__(self, config: RewardConfig, lessons: Lessons):
        self.cut = features.tokenizer(suite.detect_language(lessons.references))
        self.trigrams = Ngrams.fit([self.cut(example["reason"]) for example in lessons.references])

    def __call__(self, examples: Sequence[dict], texts: Sequence[str]) -> list[float]:
        """One figure for each text, in nats."""
        return [-math.log(self.trigrams.perplexity([self.cut(text)])) for text in texts]


class Lengths:
    """The reward `length`: 1 in the band that is asked for (`in_band`)."""

    def __init__(self, config: RewardConfig, lessons: Lessons):
        self.bands = judges.bands(lessons.dataset)
        if not self.bands:
            where = lessons.dataset.folder
            raise UserError(f"--rewards has length, and {where} declares no bands of lengths; prepare it with --length_bands, or leave it out.")
        self.judged = {NAME: self.bands.values}

    def __call__(self, examples: Sequence[dict], texts: Sequence[str]) -> list[float]:
        """One figure between 0 and 1 for each text."""
        return [in_band(self.bands, (e.get("control") or {}).get(NAME), text) for e, text in zip(examples, texts, strict=True)]


def in_band(bands: LengthBands, value: str | None, text: str) -> float:
    """1 in the band of that value (or where none is asked for), else 1 / (1 + how many words or characters it is away)."""
    if value not in bands.values:
        return 1.0
    k, edges = bands.values.index(value), (0, *bands.bounds, math.inf)
    size = bands.size(text)
    return 1.0 / (1.0 + max(edges[k] - size, size - (edges[k + 1] - 1), 0))


def fresh_words(text: str) -> float:
    """The share of a text's sequences of three words (characters, in Chinese) that are new in it; 0 of an empty text, 1 of a shorter one."""
    tokens = rerank.words(text)
    grams = list(zip(*(tokens[i:] for i in range(ORDER)), strict=False))
    return len(set(grams)) / len(grams) if grams else float(bool(tokens))


def _each(one: Callable[[dict, str], float]) -> Callable[[RewardConfig, Lessons], Score]:
    return lambda config, lessons: lambda examples, texts: [one(example, text) for example, text in zip(examples, texts, strict=True)]


MAKERS: dict[str, Callable[[RewardConfig, Lessons], Score]] = {
    "codes": Codes,
    "discriminator": lambda config, lessons: Verdicts.open(config.discriminator_from),
    "fluency": Fluency,
    "grounding": _each(lambda example, text: rerank.grounding(text, example)),
    "length": Lengths,
    "repetition": _each(lambda example, text: fresh_words(text)),
}
