"""95 % intervals and paired tests for corpus metrics.

A metric comes in one of two forms. `Sums` is a function of sums over examples (BLEU, a mean, a ratio): its examples are
resampled with replacement (percentile bootstrap; Koehn 2004, "Statistical significance tests for machine translation"),
and the sums of all resamples are one matrix product. `LeaveOneOut` is a metric that counts distinct things (USR, distinct-n, FCR)
or pairs of examples (DIV): a resample holds only 63 % of the examples, many of them several times, which biases such counts, so
these take the delete-one jackknife (Efron and Stein 1981) with a normal interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

_CELLS = 4_000_000  # resampling weights held at once (float64): 32 MB
_NORMAL = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True)
class Sums:
    """A metric that depends on its examples only through sums.

    stats: float array [N, K], one row per example.
    reduce: maps sums [..., K] to values [...]; NaN where the metric is undefined.
    """

    stats: np.ndarray
    reduce: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The metric on all examples."""
        return float(self.reduce(self.stats.sum(0)))


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """A metric with its value on all examples, `without` [N], its value when each single example is left out, and its maximum."""

    value: float
    without: np.ndarray
    most: float = math.inf


Metric = Sums | LeaveOneOut


def mean(values, scale: float = 1.0) -> Sums:
    """The mean of per-example values, times `scale`; examples whose value is NaN are left out."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0), known, scale)


def ratio(numerators, denominators, scale: float = 1.0) -> Sums:
    """Sum of `numerators` over sum of `denominators` (per example), times `scale`; NaN when the denominators sum to 0."""

    def reduce(sums):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(sums[..., 1] > 0, scale * sums[..., 0] / sums[..., 1], np.nan)

    return Sums(np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], 1), reduce)


def resample_weights(examples: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields blocks [B, examples] of how often each example occurs in each resample; rows sum to `examples`."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // max(examples, 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, examples, (rows, examples)) + np.arange(rows)[:, None] * examples
        yield np.bincount(drawn.ravel(), minlength=rows * examples).reshape(rows, examples).astype(float)


def replicates(metrics: Mapping[str, Metric], resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Values [resamples] of every `Sums` metric; the same seed gives the same resamples, so that systems can be paired."""
    sums = {name: metric for name, metric in metrics.items() if isinstance(metric, Sums)}
    if not sums:
        return {}
    examples = len(next(iter(sums.values())).stats)
    drawn: dict[str, list] = {name: [] for name in sums}
    for weights in resample_weights(examples, resamples, seed):
        for name, metric in sums.items():
            drawn[name].append(metric.reduce(weights @ metric.stats))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def intervals(metrics: Mapping[str, Metric], resamples: int, seed: int = 0) -> dict[str, dict]:
    """Every metric as {"value", "low", "high"} (95 %); None where it is undefined on these examples."""
    drawn = replicates(metrics, resamples, seed)
    result = {}
    for name, metric in metrics.items():
        if name in drawn:
            low, high = _percentiles(drawn[name])
        else:
            low, high = np.clip(_jackknife(metric.value, metric.without), 0.0, metric.most)
        result[name] = {"value": number(metric.value), "low": number(low), "high": number(high)}
    return result


def paired(a: Mapping[str, Metric], b: Mapping[str, Metric], resamples: int, seed: int = 0) -> dict[str, dict]:
    """Two systems on the same examples: {"a", "b", "difference", "low", "high", "p"} per metric, difference = a - b.

    p is two-sided: twice the share of resamples on the far side of zero, counted (k + 1) / (resamples + 1) so that it is never 0;
    1 when every resample ties. Metrics with leave-one-out values take the jackknife of the difference and a normal p.
    """
    names = [name for name in a if name in b]
    drawn_a, drawn_b = replicates(a, resamples, seed), replicates(b, resamples, seed)
    result = {}
    for name in names:
        difference = a[name].value - b[name].value
        if name in drawn_a:
            drawn = drawn_a[name] - drawn_b[name]
            (low, high), p = _percentiles(drawn), _two_sided(drawn)
        else:
            low, high = _jackknife(difference, a[name].without - b[name].without)
            error = (high - low) / 2 / _NORMAL
            p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else float(difference == 0)
        numbers = {"a": a[name].value, "b": b[name].value, "difference": difference, "low": low, "high": high, "p": p}
        result[name] = {key: number(value) for key, value in numbers.items()}
    return result


def _two_sided(drawn: np.ndarray) -> float:
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size:
        return math.nan
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (drawn.size + 1)))


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[~np.isnan(drawn)]  # a resample in which a rate has no cases says nothing about the rate
    return tuple(np.percentile(drawn, [2.5, 97.5])) if drawn.size else (math.nan, math.nan)


def _jackknife(value: float, without: np.ndarray) -> tuple[float, float]:
    count = len(without)
    if count < 2 or np.isnan(without).any():
        return math.nan, math.nan
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    return value - _NORMAL * error, value + _NORMAL * error


def number(value: float) -> float | None:
    """The value as JSON has it: None where it is undefined."""
    return None if math.isnan(value) else float(value)
