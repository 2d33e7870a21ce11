"""The validation report: what was read, kept and dropped, what looks wrong, and how long the examples are in tokens."""

from __future__ import annotations

import heapq
import math

from rgjax.data.digest import Digest
from rgjax.data.hashtable import HashTable
from rgjax.data.splits import SPLITS

_BIT = {split: 1 << i for i, split in enumerate(SPLITS)}


class Sample:
    """The records of smallest hash, within a number and a sum of bytes: a fair sample that does not depend on chance."""

    def __init__(self, most: int, most_bytes: int):
        self.most, self.most_bytes, self._bytes = most, most_bytes, 0
        self._heap: list[tuple[int, bytes]] = []  # negated hash first: the largest hash leaves first

    def offer(self, key: int, record: bytes) -> None:
        """Takes `record` with the 64-bit hash `key` in, or not."""
        if len(self._heap) == self.most and -key <= self._heap[0][0]:
            return
        heapq.heappush(self._heap, (-key, record))
        self._bytes += len(record)
        while len(self._heap) > self.most or (self._bytes > self.most_bytes and len(self._heap) > 1):
            self._bytes -= len(heapq.heappop(self._heap)[1])

    def records(self) -> list[bytes]:
        """The sampled records, by hash."""
        return [record for _, record in sorted(self._heap, reverse=True)]


class Findings:
    """A count and the first place of each thing found, by name."""

    def __init__(self):
        self.found: dict[str, dict] = {}

    def add(self, name: str, example: str) -> None:
        """Counts one more `name`; the first `example` is kept."""
        entry = self.found.setdefault(name, {"count": 0, "example": example[:300]})
        entry["count"] += 1

    def count(self, name: str) -> int:
        """How often `name` was found."""
        return self.found.get(name, {"count": 0})["count"]


class Validation:
    """Looks at every row once. Five hash tables, so at most 150 bytes an example, are all it remembers."""

    def __init__(self):
        self.read = self.malformed = 0
        self.first_problem = ""
        self.counts = dict.fromkeys(SPLITS, 0)
        self.dropped, self.warnings = Findings(), Findings()
        self._records, self._reasons, self._users, self._items, self._pairs = (HashTable() for _ in range(5))

    def bad(self, digest: Digest) -> None:
        """A row that is no example: it counts towards --max_bad_share."""
        self.malformed += 1
        told = f"{digest.where}: {digest.problem}"
        self.first_problem = self.first_problem or told
        self.dropped.add(digest.problem.kind, told)

    def is_duplicate(self, digest: Digest) -> bool:
        """Whether an equal example came before."""
        return self._records.add(digest.key) != 0

    def keep(self, digest: Digest) -> None:
        """An example that goes into its split."""
        self.counts[digest.split] += 1
        bit, told = _BIT[digest.split], f"{digest.where}: {digest.shown}"
        if self._reasons.add(digest.reason):
            self.warnings.add("reason seen before", told)
        if digest.item:
            self._items.add(digest.item, bit)
        if digest.user:
            _note(self.warnings, self._users.add(digest.user, bit), bit, "user in several splits", told)
        if digest.user and digest.item:
            pair = self._pairs.add(digest.user ^ (digest.item >> 1), bit)
            _note(self.warnings, pair, bit, "user-item pair in several splits", told)
        if digest.self_reference:
            self.warnings.add("candidate in its own history", told)
        if digest.trouble:
            self.warnings.add("encoding trouble", told)

    def to_json(self) -> dict:
        """The report so far, without token lengths."""
        distinct = {
            "users": len(self._users),
            "items": len(self._items),
            "pairs": len(self._pairs),
            "reasons": len(self._reasons),
        }
        kept = sum(self.counts.values())
        return {
            "read": self.read,
            "kept": kept,
            "distinct": distinct,
            "dropped": dict(sorted(self.dropped.found.items())),
            "warnings": dict(sorted(self.warnings.found.items())),
            "duplicate_reason_share": round(self.warnings.count("reason seen before") / max(kept, 1), 4),
        }


def _note(findings: Findings, old: int, bit: int, name: str, told: str) -> None:
    # Counted when a second split joins: a power of two (one split only) becomes more than one.
    if old and not old & bit and not old & (old - 1):
        findings.add(name, told)


def quantiles(lengths: list[int]) -> dict[str, float]:
    """Mean, median, 90th and 99th percentile (nearest rank) and maximum."""
    ordered = sorted(lengths) or [0]
    ranked = {f"p{q}": ordered[max(math.ceil(q / 100 * len(ordered)) - 1, 0)] for q in (50, 90, 99)}
    return {"mean": round(sum(ordered) / len(ordered), 1)} | ranked | {"max": ordered[-1]}


def token_report(examples: list[dict], template, tokenizer) -> dict:
    """Token lengths and the truncated share of sampled examples, as `template` renders them."""
    rendered = [template.render(example) for example in examples]
    reasons = [len(ids) for ids in tokenizer.encode_batch([e["reason"] for e in examples])]
    chars = sum(len(e["reason"]) for e in examples)
    return {
        "sampled": len(examples),
        "prompt": quantiles([len(r.prompt_ids) for r in rendered]),
        "target": quantiles([len(r.target_ids) for r in rendered]),
        "characters_per_token": round(chars / max(sum(reasons), 1), 2),
        "truncated_share": round(sum(r.truncated for r in rendered) / max(len(rendered), 1), 4),
    }


def lines(report: dict, counts: dict[str, int]) -> list[str]:
    """The report for the screen."""
    out = [f"read {report['read']:,}, kept {report['kept']:,}: " + ", ".join(f"{s} {n:,}" for s, n in counts.items())]
    out.append("distinct: " + ", ".join(f"{name} {n:,}" for name, n in report["distinct"].items()))
    for title in ("dropped", "warnings"):
        for name, entry in report[title].items():
            out.append(f"{title.removesuffix('s')}: {name} {entry['count']:,}, e.g. {entry['example']}")
    for split, tokens in report.get("tokens", {}).items():
        prompt, target = tokens["prompt"], tokens["target"]
        out.append(
            f"{split} tokens: prompt {prompt['p50']} (p99 {prompt['p99']}, max {prompt['max']}), reason {target['p50']} (p99 "
            f"{target['p99']}, max {target['max']}), {100 * tokens['truncated_share']:.1f} % truncated, of {tokens['sampled']:,} sampled"
        )
    return out
