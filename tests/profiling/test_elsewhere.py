"""Calls that another process makes: turn by turn, in its environment, and with its last words where it ends."""

import sys

import pytest

from profiling.elsewhere import Elsewhere

SERVED = """
import os, pathlib, sys
sys.path[:0] = {path!r}
from profiling.elsewhere import serve
place = pathlib.Path(sys.argv[-1])

def call():
    told = place.read_text() if place.exists() else ""
    if len(told) == 2:
        sys.exit("no third turn")
    place.write_text(told + os.environ["LETTER"])

serve(call)
"""


@pytest.fixture
def turns(tmp_path, monkeypatch):
    """(a call elsewhere, the file that its turns are written into)."""
    (tmp_path / "served.py").write_text(SERVED.format(path=sys.path))
    monkeypatch.setattr(sys, "argv", ["this"])
    place = tmp_path / "turns"
    with Elsewhere("served", str(place), env={"LETTER": "a", "PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}) as call:
        yield call, place
    assert call._process.returncode is not None  # it is gone


def test_a_turn_is_made_when_it_is_asked_for(turns):
    call, place = turns
    for told in ("a", "aa"):
        call()
        assert place.read_text() == told


def test_its_last_words_are_told(turns):
    call, place = turns
    place.write_text("aa")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no third turn"):
            call()
