"""Filtered fine-tuning: a run writes several reasons for each training example, what passes a filter is what it learns from next, and again.

A filter sharpens whatever it is given, also without an adversary, so a run that was tuned in some way is told beside a plain one that goes
through the same rounds, and both beside what they were before: by the likelihood of held-out references and the diversity of what they write.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rgjax.config import DecodeConfig, OptimizerConfig, RefineConfig, RewardConfig, to_json
from rgjax.data.dataset import Dataset
from rgjax.data.staging import staging
from rgjax.errors import UserError
from rgjax.metrics import control, features, grounding, suite
from rgjax.metrics.outside import Ngrams
from rgjax.tasks import decoding, judges, rewrite, training
from rgjax.tasks.rewards import Rewards
from rgjax.tasks.run import Earlier, Run
from rgjax.train import workdir

FILE = "refine.json"
TUNED, PLAIN = "tuned", "plain"
FREE = ("rounds", "output", "dataset", "init_from", "plain")  # more rounds may follow, and folders may have moved
OWN = {  # options of the run refined that a round leaves out
    "input": {"streams": 0, "distill": ""}, "adapter": {"adapter_from": "", "base_from": 0},
    "train": {"task": "reason", "mesh": "", "patience": 0, "samples": 0, "ewc": 0.0, "ewc_data": "", "profile_steps": ""},
}  # fmt: skip


def plain(text: str) -> str:
    """By which texts are the same: without case, and with single spaces."""
    return " ".join(text.lower().split())


def passing(scores_NK: np.ndarray, least_K: np.ndarray, texts: Sequence[str], taken: set[str]) -> list[bool]:
    """Which texts reach the least of every score and are not among those `taken`, to which they are added; empty ones never pass."""
    found = []
    for scores_K, text in zip(scores_NK, texts, strict=True):
        key = plain(text)
        found.append(bool(key) and bool((scores_K >= least_K).all()) and key not in taken)
        taken |= {key} if found[-1] else set()
    return found


@dataclasses.dataclass
class Rounds:
    """One run's way through the rounds: `arm` names its folder in --output."""

    config: RefineConfig
    arm: str
    start: str
    rewards: Rewards
    optimizer: OptimizerConfig
    decode: Callable[[dict], DecodeConfig]
    dataset: Dataset
    progress: Callable[[int, int], None]

    def __post_init__(self):
        self.folder = pathlib.Path(self.config.output) / self.arm
        self.held_out = list(itertools.islice(self.examples("val", 0), self.config.shown))
        known = judges.references(self.dataset, "train", judges.FOR_REPORTS)
        self.lang = suite.detect_language(self.held_out)
        self.cut = features.tokenizer(self.lang)
        self.outside = Ngrams.fit([self.cut(e["reason"]) for e in known])

    def examples(self, split: str, r: int) -> Iterator[dict]:
        """A split as it is asked for in round r: with --any_codes, for values drawn for some of the codes that are judged, one at least."""
        rng, codes = np.random.default_rng([self.config.seed, r]), list(self.rewards.judged.items())
        for example in self.dataset.examples(split):
            if self.config.any_codes:
                some = rng.permutation(len(codes))[: rng.integers(1, len(codes) + 1)]
                example = example | {"control": {name: values[rng.integers(len(values))] for name, values in map(codes.__getitem__, sorted(some))}}
            yield example

    def run(self, kept: Kept) -> str:
        """All rounds; returns the workdir of the last."""
        at = self.start
        if not kept.has(self.arm, 0):
            kept.add(self.arm, 0, self.measured(Run.open(at)))
        for r in range(1, self.config.rounds + 1):
            folder = self.folder / f"round_{r}"
            if not kept.has(self.arm, r):
                kept.add(self.arm, r, self.round(at, folder, r))
            at = str(folder / "run")
        return at

    def measured(self, run: Run) -> dict:
        """The likelihood of held-out references, and what the run writes for validation examples ("words" are characters of Chinese)."""
        texts = [row[0] for row in run.writer(self.writing(run, 0, 1)).write(self.held_out)]
        likely = run.perplexity(self.dataset, "val")
        scores = dict(zip(self.rewards.names, self.rewards(self.held_out, texts).mean(0).tolist(), strict=True))
        found = control.described([self.cut(text) for text in texts], self.outside)
        return {"nll": likely["loss"], **found, "rewards": scores, "words": float(np.mean([grounding.length(text, self.lang) for text in texts]))}

    def writing(self, run: Run, r: int, draws: int) -> DecodeConfig:
        """How a run writes in round r."""
        config = self.decode(run.facts)
        return dataclasses.replace(config, method="sample", n_best=draws, decode_seed=config.decode_seed + r)

    def round(self, at: str, folder: pathlib.Path, r: int) -> dict:
        """Writes, filters and learns, each unless it is done; what was found before and after."""
        folder.mkdir(parents=True, exist_ok=True)
        told = self.filtered(at, folder, r)
        if not self.learn(at, folder):
            raise UserError(f"Round {r} was interrupted while it learned; what is done is kept, run the same command again.")
        return told | self.measured(Run.open(folder / "run", "last"))

    def filtered(self, at: str, folder: pathlib.Path, r: int) -> dict:
        """The dataset of what passed, in `folder`/kept; how much did."""
        if not (folder / "kept").exists():
            written = folder / "written.jsonl"
            if not written.exists():
                run = Run.open(at, "auto" if r == 1 else "last")
                decode = self.writing(run, r, self.config.draws)
                told = {"run": Earlier(run).fingerprint, "decode": decoding.facts(decode)}
                rewrite.write_reasons(run, self.dataset, decode, written, told, self.progress, self.examples("train", r))
            reasons = rewrite.read_reasons(written)
            examples = [e for e, those in zip(self.examples("train", r), reasons, strict=True) for _ in those]
            texts = [text for those in reasons for text in those]
            scores_NK = self.rewards(examples, texts)
            good = passing(scores_NK, self.rewards.numbers, texts, self.taken(r))
            if not any(good):
                raise UserError(f"Nothing of round {r} passes the filter; see {written}, and lower --rewards (after round 1 in a new --output).")
            left = iter(good)
            passed = [[text for text in those if next(left)] for those in reasons]
            share = dict(zip(self.rewards.names, (scores_NK >= self.rewards.numbers).mean(0).tolist(), strict=True))
            told = {"from": self.dataset.fingerprint}
            told |= {"written": len(texts), "passed": sum(good), "pass_share": float(np.mean(good)), "pass_shares": share}
            with staging(folder / "kept", False) as made:
                rewrite.write_dataset(self.dataset, passed, made, "filtered", told, self.examples("train", r))
        return Dataset.open(folder / "kept").manifest["filtered"]

    def taken(self, r: int) -> set[str]:
        """What earlier rounds kept."""
        earlier = (Dataset.open(self.folder / f"round_{i}" / "kept") for i in range(1, r))
        return {plain(example["reason"]) for dataset in earlier for example in dataset.examples("train")}

    def learn(self, at: str, folder: pathlib.Path) -> bool:
        """Fine-tunes the run at `at` on what passed; whether it came to its end."""
        target, kept = str(folder / "run"), Dataset.open(folder / "kept")
        stored = workdir.read(target) if workdir.exists(target) else None
        facts, steps = stored or workdir.read(at), self.config.steps
        here = {"workdir": target, "init_from": at, "steps": steps, "seed": self.config.seed}
        here |= {"eval_every": steps, "save_every": min(facts["train"].save_every, steps)}  # one evaluation: the last is the best
        inputs = {"dataset": str(kept.folder), "batch_size": min(facts["input"].batch_size, kept.count("train"))}
        changes = {"input": OWN["input"] | inputs, "adapter": OWN["adapter"], "train": OWN["train"] | here}
        if stored:  # the folder may have been moved
            changes = {"input": {"dataset": inputs["dataset"]}, "train": {"workdir": target, "init_from": at}}
        usual = {name: workdir.SECTIONS[name]() for name in ("adversarial", "discriminator", "reward", "group")} | {"optimizer": self.optimizer}
        sections = {name: facts[name] for name in workdir.SECTIONS} | ({} if stored else usual)
        sections |= {name: dataclasses.replace(sections[name], **values) for name, values in changes.items()}
        return training.assemble(sections, stored, set()).run()["finished"]


@dataclasses.dataclass
class Kept:
    """What is done: `found[arm][round]`, in refine.json of --output."""

    path: pathlib.Path
    options: dict
    found: dict[str, dict[str, dict]]

    @classmethod
    def open(cls, config: RefineConfig, options: dict) -> Kept:
        """Raises UserError where the folder is of other options, or holds something else."""
        path = pathlib.Path(config.output) / FILE
        if not path.is_file():
            if path.parent.is_dir() and any(path.parent.iterdir()):
                raise UserError(f"--output={config.output} is not empty and holds no rounds; give a new or empty folder.")
            path.parent.mkdir(parents=True, exist_ok=True)
            made = cls(path, options, {})
            made.write()
            return made
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            before, found = stored["options"], stored["found"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged; restore it, or give another --output.") from None
        if before.get("rewards") != options["rewards"] and not any("1" in rounds for rounds in found.values()):
            before, found = before | {"rewards": options["rewards"]}, {}  # nothing was filtered yet
        if odd := next((name for name in options if name in before and before[name] != options[name]), None):
            raise UserError(f"{path} was begun with {odd}={before[odd]}, not {options[odd]}; go on with that, or give another --output.")
        return cls(path, before | options, found)

    def has(self, arm: str, r: int) -> bool:
        """Whether a round is done."""
        return str(r) in self.found.get(arm, {})

    def add(self, arm: str, r: int, values: dict) -> None:
        """Keeps a round's figures."""
        self.found.setdefault(arm, {})[str(r)] = values
        self.write()

    def write(self) -> None:
        """Puts everything into the folder."""
        workdir.replace_text(self.path, json.dumps({"options": self.options, "found": self.found}, ensure_ascii=False, indent=1) + "\n")


def refine(
    config: RefineConfig, reward: RewardConfig, optimizer: OptimizerConfig, given: DecodeConfig, explicit: set[str],
    progress: Callable[[int, int], None],
) -> tuple[dict, str]:  # fmt: skip
    """(what refine.json holds with the last round's run, a table).

    Raises UserError for a filter that the dataset can't give, runs of different datasets, and a folder of other options.
    """
    if "method" in explicit and given.method != "sample":
        raise UserError(f"--method={given.method} has no place here, where reasons are drawn; leave it out, or give sample.")
    starts = {TUNED: config.init_from} | ({PLAIN: config.plain} if config.plain else {})
    facts = {arm: workdir.read(start) for arm, start in starts.items()}
    if len({one["dataset_fingerprint"] for one in facts.values()}) > 1:
        raise UserError(f"--plain={config.plain} was trained on another dataset than --init_from={config.init_from}; give a run of the same.")
    if optimizer.preference != "none":
        raise UserError(f"--preference={optimizer.preference} needs pairs, and rounds make none; leave it out.")
    opened = {arm: Run.open(start) for arm, start in starts.items()}
    for run in opened.values():
        Earlier(run).check(run.task.factory)
    dataset = opened[TUNED].dataset(config.dataset)
    if not dataset.count("val"):
        raise UserError(f"{dataset.folder} has no validation split to measure rounds on; prepare one.")
    rewards, decode = Rewards(reward, dataset), lambda one: decoding.configured(one, given, explicit)
    if config.any_codes and not rewards.judged:
        raise UserError("--any_codes asks for control codes and no reward judges whether they are obeyed; add codes or length to --rewards.")
    options = {name: value for name, value in to_json(config).items() if name not in FREE}
    options |= {"rewards": reward.rewards, "optimizer": to_json(optimizer), "dataset": dataset.fingerprint, "discriminator": rewards.fingerprint}
    for arm, run in opened.items():
        options |= {f"{arm} run": Earlier(run).fingerprint[:16], f"{arm} decoding": decoding.facts(decode(facts[arm]))}
    kept, last = Kept.open(config, options), {}
    for arm, start in starts.items():
        last[arm] = Rounds(config, arm, start, rewards, optimizer, decode, dataset, progress).run(kept)
    found = {arm: [kept.found[arm][str(r)] for r in range(config.rounds + 1)] for arm in starts}
    return found | {"runs": last, "output": str(kept.path), "synthetic": dataset.manifest.get("synthetic", False)}, table(found)


def table(found: dict[str, list[dict]]) -> str:
    """Lines for a terminal: each run before, and after each round."""
    columns = {"passed": "pass_share", "NLL": "nll", "distinct-2": "distinct_2", "self-BLEU": "self_bleu", "perplexity": "perplexity"}
    columns |= {"words": "words"}
    names = list(next(iter(found.values()))[0]["rewards"])
    lines = ["passed: of what the round began with; NLL: of held-out references, nats per token; the others: of reasons for validation examples"]
    lines.append("".join(f"{name:>13}" for name in ("", *columns, *names)))
    for arm, rounds in found.items():
        for r, one in enumerate(rounds):
            cells = [one.get(key) for key in columns.values()] + [one["rewards"][name] for name in names]
            lines.append("".join(f"{cell:>13}" for cell in (f"{arm} {r}", *("-" if x is None else f"{x:.3f}" for x in cells))))
    return "\n".join(lines)
