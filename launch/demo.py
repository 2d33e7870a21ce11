"""The data of `make demo`, for commands that were given none."""

from __future__ import annotations

import pathlib
import sys

from launch import child

FOLDER = "runs/demo-data"


def dataset() -> str:
    """The folder of the demo's dataset, which is made if it is missing (seconds); raises UserError where that fails."""
    if not pathlib.Path(FOLDER, "dataset.json").is_file():
        print(f"no --dataset was given: making the demo's in {FOLDER}", file=sys.stderr, flush=True)
        root = pathlib.Path(__file__).parents[1]
        child.run("prepare", [f"--flagfile={root}/configs/data/demo.cfg", f"--output={FOLDER}"])
    return FOLDER
