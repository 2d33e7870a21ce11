"""What launch.inspect found, for a terminal: tables, and samples token by token with their loss mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rgjax.tasks.samples import Piece, Sample

WIDE = 120  # columns where there is no terminal
SHOWN = 12  # of a long list
BETWEEN = "·"  # stands between two tokens
STYLES = {"prompt": "not bold dim", "loss": "bold green", "special": "bold magenta", "special loss": "bold cyan"}
TITLES = {"run": "Run", "folder": "Hugging Face folder", "dataset": "Dataset", "adapter": "Adapter"}


def show(facts: dict, samples: list[Sample], console: Console | None = None) -> None:
    """Prints the facts of `tasks.inspect.inspect` and the samples; colours on a terminal, marks elsewhere."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE, file=console.file)
    console.print(Text(f"{TITLES[facts['kind']]}: {facts['path']}", style="bold"))
    for title, rows in sections(facts).items():
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False)
        table.add_column(min_width=16, style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(_printable(name)), Text(_printable(value)))
        console.print()
        console.print(table)
    for sample in samples:
        console.print()
        console.print(sample_text(sample, marked=not console.is_terminal), soft_wrap=not console.is_terminal)


def sections(facts: dict) -> dict[str, list[tuple[str, str]]]:
    """Titles with (name, value) rows."""
    found = {}
    if "architecture" in facts:
        found["Architecture"] = [(name, _plain(value)) for name, value in facts["architecture"].items()]
        found["Parameters"] = [(name, f"{count:,}") for name, count in facts["parameters"].items()]
        found["Memory, all devices together"] = _memory(facts["memory"])
    if "trained_adapter" in facts:
        found["Trained"] = [("adapter", facts["trained_adapter"]["type"]), ("on", facts["trained_adapter"]["base"])]
    if "adapter" in facts:
        found |= _adapter(facts["adapter"])
    if "counts" in facts:
        found["Examples"] = [(split, f"{count:,}") for split, count in facts["counts"].items()]
    for name, listed in facts.get("code_words", {}).items():
        found[f"Words that tell {name} apart"] = [(value, ", ".join(some)) for value, some in listed.items()]
    if "checkpoints" in facts:
        run = [(f"{which} checkpoint", f"step {step:,}" if step is not None else "none yet") for which, step in facts["checkpoints"].items()]
        found["Run"] = [*run, ("dataset", facts["dataset"] + ("" if facts["dataset_found"] else "  (not there; --dataset=ITS_COPY shows samples)"))]
    if facts.get("vectors"):
        found["One vector a text (sentence-transformers)"] = [(name, _plain(value)) for name, value in facts["vectors"].items()]
    if "tokenizer" in facts:
        found["Tokenizer"] = _tokenizer(facts)
    elif facts["kind"] == "folder":
        found["Tokenizer"] = [("kind", "none: no tokenizer.json")]
    return found


def _memory(memory: dict) -> list[tuple[str, str]]:
    rows = [("weights on disk", ", ".join(f"{_size(n)} {kind}" for kind, n in memory["stored_bytes"].items()))] if "stored_bytes" in memory else []
    names = {
        "parameters_bytes": "parameters (float32)", "gradients_bytes": "gradients (float32)", "moments_bytes": "AdamW's two moments (float32)",
        "average_bytes": "moving average (float32)",
    }  # fmt: skip
    rows += [(text, _size(memory[name])) for name, text in names.items() if name in memory]
    return [*rows, ("training, together", f"{_size(memory['training_bytes'])}; activations and batches come on top")]


def _tokenizer(facts: dict) -> list[tuple[str, str]]:
    tokenizer, special = facts["tokenizer"], facts["special_tokens"]
    extra = tokenizer["rows"] - tokenizer["vocabulary"]
    unused = f"{tokenizer['unused_rows']:,} of {tokenizer['rows']:,}" + (f"; {-extra:,} tokens have no row yet" if extra < 0 else "")
    rows = [("kind", tokenizer["kind"]), ("vocabulary", f"{tokenizer['vocabulary']:,} tokens"), ("unused rows", unused)]
    rows += [(role, f"{token}  {i}") for role, (token, i) in special["roles"].items()]
    rows += [("special tokens", _listed([f"{token} {i}" for token, i in special["others"].items()]))]
    rows += [("section markers", _listed([f"{token} {i}" for token, i in facts["markers"].items()]))]
    rows += [(f"control {name}", ", ".join(values)) for name, values in facts["control_codes"].items()] or [("control codes", "none")]
    slots = ", ".join(f"{n} {kind}" for kind, n in facts["slots"].items() if n)
    return [*rows, ("copy slots", slots or "none"), ("chat template", "present" if facts["chat_template"] else "none")]


def _adapter(adapter: dict) -> dict[str, list[tuple[str, str]]]:
    names = ("format", "type", "rank", "alpha", "targets", "base")
    rows = [(name, _plain(adapter[name])) for name in names]
    rows += [("parameters", f"{adapter['parameters']:,}"), ("weights on disk", f"{_size(adapter['bytes'])} {', '.join(adapter['dtypes'])}")]
    return {"Adapter": rows, "Tensors": [(f"{count} x {shape}", name) for name, (count, shape) in adapter["tensors"].items()]}


def sample_text(sample: Sample, marked: bool) -> Text:
    """One sample with its counts; `marked` puts [[ ]] about what carries loss, for where there is no colour."""
    cut = ", truncated" if sample.truncated else ""
    text = Text(f"Example {sample.index}: {sample.tokens} tokens, {sample.target_tokens} with loss{cut}\n", style="bold")
    for name, row in sample.rows.items():
        text.append(f"{name}  ", style="not bold italic")
        text.append_text(_row(row, marked))
        text.append("\n")
    if sample.surfaces:
        listed = ", ".join(f"{slot} = {value}" for slot, value in sample.surfaces.items())
        text.append("slots  " + _printable(listed), style="not bold dim")
    return text


def _row(row: list[Piece], marked: bool) -> Text:
    text, before = Text(), False
    for i, piece in enumerate(row):
        if marked and piece.loss and not before:
            text.append("[[")
        elif i and piece.loss == before:
            text.append(BETWEEN, style="not bold dim")
        style = ("special loss" if piece.loss else "special") if piece.special else ("loss" if piece.loss else "prompt")
        text.append(_printable(piece.text), style=STYLES[style])
        before = piece.loss
        if marked and piece.loss and (i + 1 == len(row) or not row[i + 1].loss):
            text.append("]]")
    return text


def _printable(text: str) -> str:
    """`text` with line ends and control characters written out: a folder's strings must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(value) -> str:
    if value is None or value == "" or value == []:
        return "not said"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _listed([str(v) for v in value]) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)


def _listed(values: list[str]) -> str:
    more = f", and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return (", ".join(values[:SHOWN]) + more) or "none"


def _size(count: int) -> str:
    """Bytes in decimal units, as disks and devices are sold."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"
