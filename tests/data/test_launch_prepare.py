"""The launcher as a user runs it: exit codes, one sentence, the last line, and nothing left behind."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def launch(*flags: str):
    command = [sys.executable, "-m", "launch.prepare", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_demo_flagfile_runs_and_ends_in_json(tmp_path):
    done = launch("--flagfile=configs/data/demo.cfg", f"--output={tmp_path / 'demo'}", "--demo_examples=200", "--demo_users=50")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    counts = json.loads((tmp_path / "demo" / "dataset.json").read_text())["counts"]
    assert result["counts"] == counts and sum(counts.values()) == 200
    assert "\x1b" not in done.stdout + done.stderr


def test_a_mistake_is_one_sentence_and_leaves_nothing(tmp_path):
    source = tmp_path / "raw.jsonl"
    bad = b'{"item": {"id": "i"}, "user": {"id": "u"}, "reason": "\xff\xfe broken"}\n'
    source.write_bytes(bad * 50)
    done = launch(f"--source={source}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert (
        line.startswith("error: 50 of 50")
        and f"raw.jsonl, line 1: byte {bad.index(255) + 1} is not UTF-8" in line
        and "--max_bad_share" in line
    )
    assert [p.name for p in tmp_path.iterdir()] == ["raw.jsonl"]


def test_missing_flags_are_named(tmp_path):
    done = launch("--layout=examples", f"--output={tmp_path / 'out'}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "--source is missing" in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_shops_flagfile_runs_and_an_unknown_item_is_one_sentence(tmp_path):
    done = launch("--flagfile=configs/data/demo_shop.cfg", f"--output={tmp_path / 'demo'}", "--demo_users=30", "--demo_items=30")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["counts"]["users"] == 30
    source = tmp_path / "tables"
    source.mkdir()
    (source / "items.csv").write_text("item\na\n")
    (source / "interactions.csv").write_text("user,item,time\nu,b,5\n")
    done = launch("--layout=shop", f"--source={source}", f"--output={tmp_path / 'out'}")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "") and "item 'b' is not in the table of items" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "tables"]
