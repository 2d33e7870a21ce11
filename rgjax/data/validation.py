"""The validation report: what was read, kept and dropped, what looks wrong, and how long the examples are in tokens."""

from __future__ import annotations

import heapq
import math

from rgjax.data.cleaning import has_trouble
from rgjax.data.hashtable import HashTable
from rgjax.data.records import RecordError
from rgjax.data.splits import SPLITS, hash64

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

    def bad(self, where: str, problem: RecordError) -> None:
        """A row that is no example: it counts towards --max_bad_share."""
        self.malformed += 1
        self.first_problem = self.first_problem or f"{where}: {problem}"
        self.dropped.add(problem.kind, f"{where}: {problem}")

    def drop(self, name: str, where: str, example: dict) -> None:
        """A proper example that is not wanted."""
        self.dropped.add(name, f"{where}: {example['reason'][:80]}")

    def is_duplicate(self, key: int) -> bool:
        """Whether an example of this hash came before."""
        return self._records.add(key) != 0

    def keep(self, example: dict, split: str, where: str, text: str) -> None:
        """An example that goes into `split`; `text` is its JSON."""
        self.counts[split] += 1
        bit, reason, item = _BIT[split], example["reason"], example["item"]
        if self._reasons.add(hash64(reason)):
            self.warnings.add("reason seen before", f"{where}: {reason[:80]}")
        name, user = item.get("id") or item.get("title") or "", example["user"].get("id")
        if name:
            self._items.add(item_hash := hash64(name), bit)
        if user:
            user_hash = hash64(user)
            _note(self.warnings, self._users.add(user_hash, bit), bit, "user in several splits", where, user)
            if name:
                pair = self._pairs.add(user_hash ^ (item_hash >> 1), bit)
                _note(self.warnings, pair, bit, "user-item pair in several splits", where, user)
        if _in_history(item, example["history"]):
            self.warnings.add("candidate in its own history", f"{where}: {item.get('title') or name}")
        if has_trouble(text):
            self.warnings.add("encoding trouble", f"{where}: {item.get('title') or name}")

    def to_json(self) -> dict:
        """The report so far, without token lengths."""
        distinct = {"users": len(self._users), "items": len(self._items), "pairs": len(self._pairs), "reasons": len(self._reasons)}
        kept = sum(self.counts.values())
        return {
            "read": self.read,
            "kept": kept,
            "distinct": distinct,
            "dropped": dict(sorted(self.dropped.found.items())),
            "warnings": dict(sorted(self.warnings.found.items())),
            "duplicate_reason_share": round(self.warnings.count("reason seen before") / max(kept, 1), 4),
        }


def _note(findings: Findings, old: int, bit: int, name: str, where: str, user: str) -> None:
    # Counted when a second split joins: a power of two (one split only) becomes more than one.
    if old and not old & bit and not old & (old - 1):
        findings.add(name, f"{where}: user {user}")


def _in_history(item: dict, history: list[dict]) -> bool:
    name, title = item.get("id"), item.get("title")
    for event in history:
        other = event.get("item")
        if (name is not None and other == name) or ((name is None or other is None) and title and event.get("title") == title):
            return True
    return False


def quantiles(lengths: list[int]) -> dict[str, float]:
    """Mean, median, 90th and 99th percentile (nearest rank) and maximum."""
    ordered = sorted(lengths) or [0]
    rank = lambda q: ordered[max(math.ceil(q * len(ordered)) - 1, 0)]  # noqa: E731
    mean = round(sum(ordered) / len(ordered), 1)
    return {"mean": mean, "p50": rank(0.5), "p90": rank(0.9), "p99": rank(0.99), "max": ordered[-1]}


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
