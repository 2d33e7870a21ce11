"""A file of inputs becomes a file of reasons: in order, in bounded memory, and restarted where it stopped."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
import time
from collections.abc import Callable, Container, Iterator

from rgjax.data.cleaning import clean_example
from rgjax.data.injected import neutral
from rgjax.data.readers import jsonl
from rgjax.data.records import RecordError, check
from rgjax.data.words import missing
from rgjax.errors import UserError

WriteFn = Callable[[list[dict], int], list[list[str]]]  # (examples, number of the first) -> reasons per example


def read_examples(
    path: str | pathlib.Path, controls: dict, override: dict, start: int = 0, adapters: Container[str] = ("",), strip: bool = False
) -> Iterator[dict]:
    """Checked and cleaned examples of a JSON lines file from line `start` (from 0); raises UserError naming the first bad line.

    `adapters` are the names that a line may choose; the empty one is the run's own. With `strip` their texts are without instructions to the
    model, and "stripped" says how many had any.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(itertools.islice(file, start, None), start + 1):
            try:
                if raw.isspace():
                    raise RecordError("it is empty; every line is one example")
                example = jsonl.parse(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
                check(example, controls, require_reason=False)
                example, stripped = neutral(example) if strip else (example, 0)
            except RecordError as error:
                raise UserError(f"{path}, line {number}: {error}.") from None
            if (name := example.get("adapter") or "") not in adapters:
                known = ", ".join(filter(None, adapters)) or "none are given"
                raise UserError(f"{path}, line {number}: 'adapter' is {name!r}, which --adapters does not name; its adapters: {known}.")
            # Cleaned as launch.prepare cleans, so that the model reads what it learnt to read.
            more = {"adapter": name, "require": example.get("require"), "stripped": stripped}
            cleaned = clean_example(example | {"control": {**(example.get("control") or {}), **override}})
            yield cleaned | {key: value for key, value in more.items() if value}


def generate_file(
    input: str, output: str, write: WriteFn, *, settings: dict, controls: dict, override: dict, chunk: int, overwrite: bool,
    progress: Callable[[int, int], None], adapters: Container[str] = ("",), required: Callable[[dict], list[str]] = lambda example: [],
    strip: bool = False,
) -> dict:  # fmt: skip
    """Writes one line per input line to `output`, through `output`.partial, which a later call with the same settings continues.

    `settings` says what determines the reasons (run, step, decoding); a partial file of other settings or of another input
    is refused. Every line is checked before the first reason is written; `required` gives the words that a reason for it must hold, and raises
    UserError where they can't be written; `strip` as in `read_examples`. Returns counts, of a continued file those of all of it, and seconds.
    """
    target, partial = pathlib.Path(output), pathlib.Path(output + ".partial")
    if not pathlib.Path(input).is_file():
        raise UserError(f"--input={input} is no file; give JSON lines of examples.")
    if target.is_dir():
        raise UserError(f"--output={output} is a folder; give a file.")
    if target.exists() and not overwrite:
        raise UserError(f"--output={output} exists; give another file, or --overwrite.")
    total, stripped, asked, digest = 0, 0, 0, hashlib.sha256()
    for example in read_examples(input, controls, override, 0, adapters, strip):
        total, stripped = total + 1, stripped + example.get("stripped", 0)
        digest.update(json.dumps(example, sort_keys=True).encode())
        try:
            asked += len(required(example))
        except UserError as error:
            raise UserError(f"{input}, line {total}: {error}") from None
    if not total:
        raise UserError(f"--input={input} is empty; give JSON lines of examples.")
    done = _resume(partial, settings | {"input_sha256": digest.hexdigest()})
    started, resumed = time.perf_counter(), done
    with partial.open("a", encoding="utf-8") as file:
        examples = read_examples(input, controls, override, done, adapters, strip)
        while batch := list(itertools.islice(examples, chunk)):
            for example, reasons in zip(batch, write(batch, done), strict=True):
                file.write(json.dumps(output_row(example, reasons), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            done += len(batch)
            progress(done, total)
    seconds = time.perf_counter() - started
    absent = _absent(partial, read_examples(input, controls, override, 0, adapters, strip), required) if asked else 0
    os.replace(partial, target)
    _settings_path(partial).unlink(missing_ok=True)
    result = {"output": str(target), "reasons": total, "continued_at": resumed, "seconds": seconds, "reasons_per_second": (total - resumed) / seconds}
    result |= {"stripped_texts": stripped} if stripped else {}
    return result | ({"required_words": {"asked": asked, "written": asked - absent}} if asked else {})


def _absent(path: pathlib.Path, examples: Iterator[dict], required: Callable[[dict], list[str]]) -> int:
    """How many required words of the examples do not stand in their reasons, one line each of an outputs file."""
    with path.open(encoding="utf-8") as file:
        return sum(len(missing(json.loads(line)["reason"], required(example))) for line, example in zip(file, examples, strict=True))


def output_row(example: dict, reasons: list[str]) -> dict:
    """One output line: the ids, the reason, and all of them where several were asked for."""
    row = {"user": (example.get("user") or {}).get("id"), "item": example["item"].get("id") or example["item"].get("title")}
    return {k: v for k, v in row.items() if v is not None} | {"reason": reasons[0]} | ({"reasons": reasons} if len(reasons) > 1 else {})


def _settings_path(partial: pathlib.Path) -> pathlib.Path:
    return partial.with_name(partial.name + ".json")


def _resume(partial: pathlib.Path, settings: dict) -> int:
    """Whole lines already written under the same settings; a half-written last line is cut off."""
    known = _settings_path(partial)
    if partial.exists() and known.exists():
        if json.loads(known.read_text()) != json.loads(json.dumps(settings)):
            raise UserError(f"{partial} was begun with another input, run or decoding; remove it, or run with what began it.")
        return _cut(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("")
    fresh = known.with_name(known.name + ".tmp")
    fresh.write_text(json.dumps(settings))
    os.replace(fresh, known)
    return 0


def _cut(partial: pathlib.Path) -> int:
    """Cuts a half-written last line off; returns the number of whole lines."""
    count, end = 0, 0
    with partial.open("r+b") as file:
        for line in file:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def read_reasons(path: str | pathlib.Path, count: int, more: bool = False) -> list[str]:
    """The 'reason' of each line of an outputs file; raises UserError unless there are `count` (at least so many, with `more`)."""
    reasons = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("reason"), str):
                    raise UserError(f"{path}, line {number} has no text 'reason'; give one object with a reason per line.")
                reasons.append(row["reason"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as UTF-8 JSON lines ({error}); write it with launch.generate.") from None
    if len(reasons) < count or not count or (len(reasons) > count and not more):
        raise UserError(f"{path} holds {len(reasons)} reasons for {count} examples; give one line per example of the split, in order.")
    return reasons[:count]
