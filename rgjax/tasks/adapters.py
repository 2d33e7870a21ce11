"""Several adapters on one model: each input is written with the one it names, and the model's own weights are held once."""

from __future__ import annotations

import dataclasses

from rgjax.config import DecodeConfig
from rgjax.errors import UserError
from rgjax.hf import adapter as adapter_lib
from rgjax.tasks.reason import ReasonTask
from rgjax.tasks.run import Run, family_of


def parse(text: str) -> dict[str, str]:
    """'name=FOLDER,name=FOLDER' as a dict; raises UserError when it is not of that form."""
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, mark, folder = part.partition("=")
        if not (mark and name and folder) or name in found:
            raise UserError(f"--adapters={text} is not understood at '{part}'; write each name once, as name=FOLDER,name=FOLDER.")
        found[name] = folder
    return found


class Writers:
    """Writes with a run's own weights or with further adapters on its model; used as a ReasonWriter."""

    def __init__(self, run: Run, config: DecodeConfig, folders: dict[str, str]):
        """Raises UserError when an adapter's folder is unusable or belongs to another model."""
        own = {name: value for name, value in run.params.items() if name != "adapter"}
        base, family, facts = run.task.factory.base, family_of(run) if folders else None, run.facts
        self._writers = {"": run.writer(config)}
        for name, folder in folders.items():
            options, values = adapter_lib.read(folder, base, family)
            inputs = dataclasses.replace(facts["input"], item_vectors="", user_vectors="")  # an adapter that comes in a folder reads none
            task = ReasonTask(run.task.tokenizer, inputs, facts["model"], options)
            task = task.in_int8() if run.weights == "int8" else task
            self._writers[name] = task.writer({**own, "adapter": values}, config, run.liked)

    @property
    def names(self) -> list[str]:
        """What an input may name; the empty name is the run itself."""
        return list(self._writers)

    @property
    def rows(self) -> int:
        """Inputs decoded together."""
        return self._writers[""].writer.rows

    def required(self, example: dict) -> list[str]:
        """As ReasonWriter's."""
        return self._writers[""].required(example)

    def write(self, examples: list[dict], first_row: int = 0) -> list[list[str]]:
        """As ReasonWriter's; an example's "adapter" chooses."""
        reasons: list[list[str]] = [[]] * len(examples)
        for name, writer in self._writers.items():
            mine = [i for i, example in enumerate(examples) if example.get("adapter", "") == name]
            if mine:
                rows = [first_row + i for i in mine]
                for i, found in zip(mine, writer.write([examples[i] for i in mine], rows=rows), strict=True):
                    reasons[i] = found
        return reasons
