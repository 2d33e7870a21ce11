"""Written reasons beside their inputs, for a terminal."""

from __future__ import annotations

import json
import pathlib

from rich.console import Console
from rich.text import Text

from rgjax.data.template import attribute_values
from rgjax.errors import UserError


def show(workdir: str | pathlib.Path, count: int) -> dict:
    """Prints `count` of a run's outputs.jsonl, spread over the split; raises UserError when it was not evaluated yet."""
    path, stored = pathlib.Path(workdir) / "outputs.jsonl", pathlib.Path(workdir) / "config.json"
    task = json.loads(stored.read_text(encoding="utf-8")).get("task", "reason") if stored.is_file() else "reason"
    if task != "reason":
        raise UserError(f"{workdir} is a run of --task={task}, which has no written reasons to show; see launch.recommend.")
    if not path.exists():
        raise UserError(f"{path} is missing; run python -m launch.evaluate --workdir={workdir} first.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    config = json.loads((pathlib.Path(workdir) / "config.json").read_text(encoding="utf-8"))
    console = Console(highlight=False)
    if config.get("synthetic"):
        console.print(Text("Synthetic data: shop, shoppers and reference reasons were made by a program.", style="bold"))
    chosen = rows[:: max(1, len(rows) // count)][:count]
    for number, row in enumerate(chosen, 1):
        console.print(_card(number, row["example"], row["reason"]))
    folder = pathlib.Path(workdir)
    pages = {"report": folder / "report.html", "scores": folder / "evaluation.json", "all reasons": path}
    pages |= {"model for transformers": folder / "export"} if (folder / "export").is_dir() else {}
    console.print("Open next:")
    for what, where in pages.items():
        if where.exists():
            console.print(f"  {what:<24}{where}", markup=False)
    return {"shown": len(chosen), "outputs": str(path), "open": {k: str(v) for k, v in pages.items() if v.exists()}}


def _card(number: int, example: dict, reason: str) -> Text:
    text = Text(f"\n{number}. ", style="bold")
    item = example["item"]
    facts = "; ".join(f"{n} {v}" for n, v in attribute_values(item.get("attributes")))
    text.append(f"{item.get('title') or item.get('id')}", style="bold")
    text.append(f"  ({facts})\n" if facts else "\n", style="")
    titles = [e.get("title") or str(e.get("item")) for e in (example.get("history") or [])[-4:]]
    control = ", ".join(f"{n}={v}" for n, v in (example.get("control") or {}).items())
    for name, value in (("history", " | ".join(titles)), ("asked for", control), ("reference", example.get("reason") or "")):
        if value:
            text.append(f"   {name:<10}{value}\n", style="dim")
    text.append("   written   ")
    text.append(f"{reason}\n", style="green")
    return text
