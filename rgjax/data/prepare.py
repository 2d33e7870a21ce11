"""Raw data -> a dataset folder of examples, in one streaming pass: read, work off (digest), count, write; then tokenizer and report.

Memory does not grow with the texts: besides hash tables (at most 150 bytes an example) there are the sample for the tokenizer and
the samples for token lengths, both bounded in bytes.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import time

from rgjax import config as config_lib
from rgjax.config import InputConfig, PrepareConfig
from rgjax.data import digest as digest_lib
from rgjax.data import length_bands, progress, readers, records, shards, validation
from rgjax.data.dataset import FORMAT, Dataset, folders
from rgjax.data.derived import Agreement, WordCodes
from rgjax.data.length_bands import LengthBands
from rgjax.data.splits import SPLITS, Splitter, hash64
from rgjax.data.staging import staging, tempfolder, write_json
from rgjax.data.template import Template, example_texts
from rgjax.data.tokenizer import Tokenizer, train_bpe
from rgjax.errors import UserError

_TOKENIZER_SAMPLE = (40_000, 16 << 20)  # most examples and bytes the tokenizer learns from
_LENGTH_SAMPLE = (1_000, 8 << 20)  # most examples and bytes per split measured in tokens
_HOPELESS = 100  # this many rows from the start without one example: the layout is wrong
# Say where, not what, or are for shops only; left out so that equal data gives equal bytes.
_RUN_ONLY = ("source", "output", "overwrite", "now", "max_duplicate_share")


def prepare(config: PrepareConfig) -> dict:
    """Writes the dataset folder `config.output`; returns its summary. Raises UserError, and then leaves nothing behind."""
    from rgjax.data import prepare_shop  # it builds on this file

    if config.layout in prepare_shop.LAYOUTS:
        return prepare_shop.prepare_shop(config)
    start = time.monotonic()
    controls, others = records.parse_controls(config.controls), _others(config)
    with staging(pathlib.Path(config.output), config.overwrite) as folder:
        with tempfolder(folder / "scratch") as scratch:
            source = readers.open_source(config, controls, scratch)
            _check_space(folder, source.size)
            run = _Run(config, source, folder, others)
            run.read()
        manifest = run.finish()
    seconds = time.monotonic() - start
    for line in validation.lines(manifest["report"], manifest["counts"]):
        print(line)
    return {
        "dataset": config.output,
        "counts": manifest["counts"],
        "dropped": {name: entry["count"] for name, entry in manifest["report"]["dropped"].items()},
        "vocab_size": manifest["tokenizer"]["vocab_size"],
        "seconds": round(seconds, 2),
        "examples_per_second": round(manifest["report"]["read"] / seconds),
    }


class _Run:
    """One preparation: the source going in, the writers and the report coming out."""

    def __init__(self, config: PrepareConfig, source: readers.Source, folder: pathlib.Path, others: list[Dataset]):
        self.config, self.source, self.folder, self.others = config, source, folder, others
        bands = LengthBands.parse(config.length_bands) if config.length_bands else None
        self.controls = {name: list(values) for name, values in source.controls.items()}
        if bands and length_bands.NAME in self.controls:
            raise UserError(f"--length_bands={config.length_bands} derives the control code 'length', which the data declares; leave one out.")
        self.agreement = Agreement(WordCodes.open(config.derive_words, self.controls)) if config.derive_words else None
        codes = self.agreement and self.agreement.codes
        if bands and codes and length_bands.NAME in codes.lists:
            raise UserError(f"--length_bands={config.length_bands} and --derive_words={config.derive_words} both give 'length'; leave one out.")
        self.job = digest_lib.Job(config, dict(source.controls), Splitter(config, set(source.splits), source.split_key), bands, codes)
        self.derived = {length_bands.NAME: {"how": "measured", "unit": bands.unit, "bounds": list(bands.bounds)}} if bands else {}
        self.controls |= {length_bands.NAME: bands.values} if bands else {}
        self.controls = (codes.controls if codes else {}) | self.controls
        self.report = validation.Validation()
        self.writers = {split: shards.ShardWriter(folder, split, config.shard_examples) for split in SPLITS}
        self.for_tokenizer = validation.Sample(*_TOKENIZER_SAMPLE)
        self.for_lengths = {split: validation.Sample(*_LENGTH_SAMPLE) for split in SPLITS}

    def read(self) -> None:
        """Reads every row; raises UserError when too many are malformed, or a control code is undeclared."""
        work = digest_lib.digests(self.job, self.source)
        try:
            for digest in progress.track(work, self.source.size):
                self.report.read += 1
                self._take(digest)
        finally:
            work.close()
            for writer in self.writers.values():
                writer.abandon()
        self._judge()

    def _take(self, digest: digest_lib.Digest) -> None:
        report = self.report
        if digest.problem is not None:
            if isinstance(digest.problem, records.ControlError):
                raise UserError(f"{digest.where}: {digest.problem}; declare it with --controls or mend the data.")
            report.bad(digest)
            if report.malformed == report.read == _HOPELESS:
                self._refuse()
        elif digest.unwanted:
            report.dropped.add(digest.unwanted, f"{digest.where}: {digest.shown}")
        elif self.config.drop_duplicates and report.is_duplicate(digest):
            report.dropped.add("duplicate", f"{digest.where}: {digest.shown}")
        else:
            report.keep(digest)
            if self.agreement:
                self.agreement.add(digest.derived, digest.own)
            record = digest.record()
            self.writers[digest.split].write(record)
            self.for_lengths[digest.split].offer(digest.key, record)
            if digest.split == "train":
                self.for_tokenizer.offer(digest.key, record)

    def _judge(self) -> None:
        report = self.report
        if report.malformed > self.config.max_bad_share * report.read:
            self._refuse()
        if not report.counts["train"]:
            drops = "; ".join(f"{name}: {e['count']}" for name, e in report.dropped.found.items()) or "there were no rows at all"
            raise UserError(f"--source={self.config.source} left no training example ({drops}); check --layout and --split_by.")

    def _refuse(self) -> None:
        report = self.report
        raise UserError(
            f"{report.malformed:,} of {report.read:,} examples read are malformed, more than --max_bad_share={self.config.max_bad_share:g}; "
            f"the first is {report.first_problem}; mend the file, check --layout, or raise --max_bad_share."
        )

    def finish(self) -> dict:
        """Names the shards, writes the tokenizer and dataset.json; returns the latter's content."""
        listed = {split: writer.close() for split, writer in self.writers.items()}
        tokenizer = self._tokenizer(self.controls)
        tokenizer.save(self.folder / "tokenizer")
        for name, value in self.source.extras.items():
            write_json(self.folder / name, value)
        manifest = {
            "format": FORMAT,
            "name": _name(self.config),
            "synthetic": self.source.synthetic,
            "counts": self.report.counts,
            "splits": listed,
            "tokenizer": {"folder": "tokenizer", "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.checksum()},
            "controls": self.controls,
            "config": _config(self.config),
            "report": self.report.to_json() | {"tokens": self._lengths(tokenizer)},
        }
        derived = self.derived | (self.agreement.to_json() if self.agreement else {})
        manifest |= {"derived_controls": derived} if derived else {}
        write_json(self.folder / "dataset.json", manifest)
        return manifest

    def _tokenizer(self, controls: dict[str, list[str]]) -> Tokenizer:
        if self.config.tokenizer:
            return Tokenizer.load(self.config.tokenizer)
        samples, merged = [self.for_tokenizer], {name: list(values) for name, values in controls.items()}
        for other in self.others:
            samples.append(validation.Sample(*_TOKENIZER_SAMPLE))
            for record in map(records.encode, other.examples("train")):
                samples[-1].offer(hash64(record), record.encode())
            for name, values in other.controls.items():
                merged[name] = list(dict.fromkeys([*merged.get(name, []), *values]))
        texts = (text for sample in samples for record in sample.records() for text in example_texts(json.loads(record)))
        return train_bpe(texts, self.config.vocab_size, self.config.slots, merged)

    def _lengths(self, tokenizer: Tokenizer) -> dict[str, dict]:
        template = Template(tokenizer, InputConfig(length=self.config.max_tokens))
        out = {}
        for split, sample in self.for_lengths.items():
            examples = [json.loads(record) for record in sample.records()]
            if examples:
                out[split] = validation.token_report(examples, template, tokenizer)
        return out


def _check_space(folder: pathlib.Path, source_bytes: int) -> None:
    """Refuses at once what cannot fit; shards take about 0.2 to 0.5 of the raw bytes."""
    free, needed = shutil.disk_usage(folder).free, source_bytes // 2 + (4 << 20)
    if free < needed:
        raise UserError(
            f"{folder.parent} has {free >> 20} MB free, and the dataset may need {needed >> 20}; free some or change --output."
        )


def _name(config: PrepareConfig) -> str:
    if config.layout == "demo":
        return "synthetic-shop"
    return config.layout if config.layout not in ("examples", "tables") else pathlib.Path(config.source).stem


def _config(config: PrepareConfig) -> dict:
    kept = {name: value for name, value in config_lib.to_json(config).items() if name not in _RUN_ONLY}
    names = ",".join(pathlib.Path(folder).name for folder in folders(config.tokenizer_with))
    lists = {"derive_words": pathlib.Path(config.derive_words).name}
    return kept | lists | {"tokenizer": pathlib.Path(config.tokenizer).name, "tokenizer_with": names}


def _others(config: PrepareConfig) -> list[Dataset]:
    if config.tokenizer and config.tokenizer_with:
        raise UserError(f"--tokenizer_with={config.tokenizer_with} trains a vocabulary and --tokenizer={config.tokenizer} is one; leave one out.")
    return [Dataset.open(folder) for folder in folders(config.tokenizer_with)]
