"""The folder of a run: begun, copied into, and held by one process."""

import subprocess
import sys

import pytest
from environment import ROOT

from rgjax.errors import UserError
from rgjax.train import workdir

HOLD = "import sys; from rgjax.train import workdir; held = workdir.claim(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("left", [(), ("flags.cfg",), ("flags.cfg.tmp",), ("flags.cfg", "config.json.tmp")])
def test_a_start_that_was_killed_before_it_wrote_its_configuration_is_begun_anew(tmp_path, left):
    for name in left:
        (tmp_path / name).write_text("--steps")
    assert not workdir.exists(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        workdir.exists(tmp_path)


def test_files_are_copied_whole_and_only_where_they_differ(tmp_path):
    (tmp_path / "from").mkdir()
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / "from" / name).write_text(text)
    workdir.copy(tmp_path / "from", tmp_path / "to")
    kept = (tmp_path / "to" / "a").stat().st_ino
    (tmp_path / "to" / "b").write_text("tw")  # as a kill might have left it
    workdir.copy(tmp_path / "from", tmp_path / "to")
    assert {p.name: p.read_text() for p in (tmp_path / "to").iterdir()} == {"a": "one", "b": "two"}
    assert (tmp_path / "to" / "a").stat().st_ino == kept


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="Another process is training in"):
        workdir.claim(tmp_path)
    other.kill()  # as SIGKILL would: nothing is left behind
    other.wait()
    workdir.claim(tmp_path).close()
    other.stdin.close(), other.stdout.close()
