"""Raw data made into a dataset by launch.prepare, with the flagfile of configs/data whose layout reads it; and how to train on it."""

from __future__ import annotations

import itertools
import pathlib
import re
import sys
import tempfile

from launch import app, child, demo
from rgjax.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[1] / "configs/data"
LOOKED_AT = 100  # rows that tell a layout


def layout(cfg: pathlib.Path) -> str:
    """The layout that a flagfile of launch.prepare names."""
    return re.search(r"^--layout=(\w+)", cfg.read_text(), re.M)[1]


def rows_read(source: str, layout: str) -> int:
    """How many of the source's first rows are sound examples in this layout; 0 where it finds none of its files there."""
    from rgjax.config import PrepareConfig
    from rgjax.data import readers

    try:
        with tempfile.TemporaryDirectory() as scratch:
            opened = readers.open_source(PrepareConfig(layout=layout, source=source), {}, pathlib.Path(scratch))
            return sum(row.problem is None for row in itertools.islice(opened.rows, LOOKED_AT))
    except UserError:
        return 0


def flagfile(source: str) -> str:
    """That of configs/data which reads most of the source's first rows, told on stderr; raises UserError where none reads any."""
    from rgjax.data.prepare_shop import LAYOUTS

    if not pathlib.Path(source).exists():
        raise UserError(f"--source={source} does not exist; give the folder or file with the raw data.")
    of_reasons = [cfg for cfg in sorted(CONFIGS.glob("*.cfg")) if layout(cfg) not in ("demo", *LAYOUTS)]
    best = max(of_reasons, key=lambda cfg: rows_read(source, layout(cfg)))
    if not rows_read(source, layout(best)):
        raise UserError(f"--source={source} is read by no flagfile of configs/data; give launch.prepare's flagfile for it as --prepare.")
    print(f"--prepare is not given: {source} is read by {best.relative_to(CONFIGS.parents[1])}", file=sys.stderr, flush=True)
    return str(best)


def trained_as_usual(cfg: str) -> None:
    """Reads the flagfile of configs/ that trains on what `cfg` prepares, as if the command had begun with it; not where one was given, or where
    there is none. The command's own flags count above it."""
    name = pathlib.Path(cfg).stem
    usual = [path for path in (CONFIGS.parent / f"{name}_small.cfg", CONFIGS.parent / f"{name}.cfg") if path.is_file()]
    if usual and not any(re.match("--?flagfile", arg) for arg in sys.argv[1:]):
        print(f"no --flagfile was given: layout and model are those of {usual[0].relative_to(CONFIGS.parents[1])}", file=sys.stderr, flush=True)
        sys.argv.insert(1, f"--flagfile={usual[0]}")
        app.FLAGS(sys.argv)


def of_demo() -> str:
    """The demo's dataset, made if it is missing, to be trained on as usual."""
    folder = demo.dataset()
    trained_as_usual("demo.cfg")
    return folder


def prepared(source: str, cfg: str, output: str) -> str:
    """A dataset folder made of raw data by launch.prepare with a flagfile."""
    child.run("prepare", [f"--flagfile={cfg}", f"--source={source}", f"--output={output}"])
    return output
