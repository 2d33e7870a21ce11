"""Every flagfile in configs/: its options exist, and their values are in range."""

import dataclasses
import pathlib

import pytest

from rgjax import config as config_lib

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
CLASSES = [cls for name in config_lib.__all__ if dataclasses.is_dataclass(cls := getattr(config_lib, name)) and isinstance(cls, type)]
PARSE = {bool: {"true": True, "false": False}.__getitem__, int: int, float: float, str: str}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.cfg")), ids=lambda path: path.stem)
def test_options_exist_and_are_in_range(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines and any(line.startswith("#   python -m launch.") for line in path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        name, mark, text = line.removeprefix("--").partition("=")
        owners = [(cls, f) for cls in CLASSES for f in dataclasses.fields(cls) if f.name == name]
        assert owners and (mark or type(owners[0][1].default) is bool), line
        for cls, field in owners:
            config_lib.check(cls(**{name: PARSE[type(field.default)](text if mark else "true")}))
