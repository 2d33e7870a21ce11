"""Large pages are asked for where they help, and a process begins again as it was started."""

import os
import pathlib
import subprocess
import sys

import pytest

from launch import pages

GLIBC, ASKED = "glibc 2.36", "always [madvise] never\n"
HUGE = "glibc.malloc.hugetlb=1"


def test_asks_beside_what_is_set():
    assert pages.with_large_pages({"A": "b"}, GLIBC, ASKED) == {"A": "b", "GLIBC_TUNABLES": HUGE}
    assert pages.with_large_pages({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, GLIBC, ASKED)["GLIBC_TUNABLES"] == f"glibc.malloc.check=1:{HUGE}"


@pytest.mark.parametrize(
    "said, library, kernel",
    [
        (HUGE, GLIBC, ASKED),  # a process that began again does not do so for ever
        ("glibc.malloc.hugetlb=0", GLIBC, ASKED),
        ("", "glibc 2.34", ASKED),
        ("", "", ASKED),  # musl, macOS
        ("", GLIBC, "[always] madvise never\n"),
        ("", GLIBC, "always madvise [never]\n"),
        ("", GLIBC, ""),  # a kernel without them
    ],
)
def test_leaves_alone(said, library, kernel):
    assert pages.with_large_pages({"GLIBC_TUNABLES": said}, library, kernel) is None


SCRIPT = """
import os, pathlib, sys
from launch import pages
pages.library, pages.KERNEL = lambda: "glibc 2.36", pathlib.Path(sys.argv[1])
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
pages.begin_again()
print("went on")
"""


def lines_of(folder: pathlib.Path, *command: str) -> tuple[int, list[str]]:
    """(process, what it prints) of python with `command`, which runs the module `begun`."""
    (folder / "enabled").write_text(ASKED)
    (folder / "begun.py").write_text(SCRIPT)
    paths = f"{folder}{os.pathsep}{pathlib.Path(pages.__file__).parents[1]}"
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {"PYTHONPATH": paths}
    begun = subprocess.Popen([sys.executable, *command, str(folder / "enabled"), "--a=b c", "x"], env=env, stdout=subprocess.PIPE, text=True)
    lines = begun.communicate(timeout=60)[0].splitlines()
    assert begun.returncode == 0
    return begun.pid, lines


def test_begins_again_once_as_it_was_started(tmp_path):
    pid, lines = lines_of(tmp_path, "-m", "begun")
    assert lines == [f"{pid} None ['--a=b c', 'x']", f"{pid} {HUGE} ['--a=b c', 'x']", "went on"]


def test_goes_on_where_another_program_runs_it(tmp_path):
    run = "import runpy; runpy.run_module('begun', run_name='__main__', alter_sys=True)"
    pid, lines = lines_of(tmp_path, "-c", run)
    assert lines == [f"{pid} None ['--a=b c', 'x']", "went on"]
