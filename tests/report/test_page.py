import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from rgjax import report
from rgjax.config import to_json
from rgjax.errors import UserError
from rgjax.metrics import suite
from rgjax.report import collect, page, reasons
from rgjax.train.workdir import SECTIONS

EVIL = '<script>alert("x")</script>'
EXAMPLES = [
    {
        "item": {"title": f"Film {i} {EVIL}", "attributes": {"genre": ["war", EVIL]}},
        "history": [{"title": f"Old film {i}"}],
        "control": {EVIL: EVIL},
        "reason": f"You liked Old film {i}, so Film {i}. {EVIL}",
    }
    for i in range(30)
]
TEXTS = [e["reason"] for e in EXAMPLES]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"task": EVIL, "synthetic": False, "train": {"steps": 40, "seed": 7}, "input": {"dataset": EVIL}})
    )
    rows = [
        {"step": s, "loss": 5 / s, "target_tokens_per_second": 10 * s, "learning_rate": 0.1, "grad_norm": 1.0}
        for s in range(1, 41)
    ]
    lines(folder / "metrics.jsonl", rows + [{"step": 40, "val_loss": 0.25}, {"step": 40, "loss": math.nan}])
    return folder


@pytest.fixture
def evaluated(workdir):
    scores = suite.with_floors(EXAMPLES, TEXTS, EXAMPLES[:5], max_words=20, resamples=100)
    scores["paired"] = suite.paired(EXAMPLES, TEXTS, TEXTS[::-1], max_words=20, resamples=100)
    (workdir / "evaluation.json").write_text(json.dumps(scores | {"synthetic": True, "split": EVIL}))
    lines(workdir / "outputs.jsonl", [{"example": e, "reason": t} for e, t in zip(EXAMPLES, TEXTS, strict=False)])
    sample = {"item": EVIL, "history": [EVIL], "control": {}, "reference": EVIL}
    lines(workdir / "samples.jsonl", [{"step": s, **sample, "reason": f"written at {s} {EVIL}"} for s in range(10, 60, 10)])
    return workdir


class Checker(HTMLParser):
    """Every opened element is closed in order, and nothing is fetched from elsewhere."""

    VOID = {"meta", "br", "line", "rect", "path", "circle", "polyline"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        for name, value in attributes:
            assert name not in ("src", "href") and not name.startswith("on") and "url(" not in (value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def checked(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and "script" not in checker.seen
    assert "<script" not in text
    return text


def test_a_page_of_a_run_that_is_not_evaluated(workdir):
    result = report.write(workdir)
    text = checked((workdir / "report.html").read_text())
    assert result == {"report": str(workdir / "report.html"), "bytes": len(text.encode()), "step": 40, "examples": 0}
    assert "launch.evaluate" in text and "Synthetic data" not in text and "40 of 40" in text
    assert text.count("<figure>") == 4 and "0.2500" in text


def test_a_whole_page(evaluated):
    report.write(evaluated)
    text = checked((evaluated / "report.html").read_text())
    assert "Synthetic data" in text
    for name in ("bleu_4", "rouge_l", "random", "template", "retrieval", "reference", "paired bootstrap"):
        assert name in text
    assert text.count("&lt;script&gt;") > 30
    assert len(re.findall('class="card"', text)) == collect.SHOWN_OUTPUTS + 1
    assert "<mark>Old film 3</mark>" in text and "step 50" in text


def test_each_language_has_its_scores(evaluated):
    one = json.loads((evaluated / "evaluation.json").read_text())
    others = {"system": one["system"], "floors": one["floors"], "language": "zh", "examples": 17}
    (evaluated / "evaluation.json").write_text(json.dumps(one | {"others": [others]}))
    text = checked(page.render(collect.read(evaluated)))
    assert "language en, 30 examples" in text and "language zh, 17 examples" in text
    assert text.count("<td title=") == 2 * len(one["system"])


def test_scores_that_beat_every_floor_are_marked(evaluated):
    text = page.render(collect.read(evaluated))
    row = re.search(r"<tr><td[^>]*>bleu_4</td>(.*?)</tr>", text).group(1)
    assert 'class="n ahead">100.00' in row


def test_configuration_that_differs_from_the_default_is_bold(workdir):
    text = page.render(collect.read(workdir))
    assert "<div class=set><span>seed</span><span>7</span></div>" in text


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_tells_what_is_not_its_default(workdir, name):
    config = json.loads((workdir / "config.json").read_text())
    usual = to_json(SECTIONS[name]())
    changed = next(iter(usual))
    (workdir / "config.json").write_text(json.dumps({"train": {}} | config | {name: usual | {changed: "changed"}}))
    block = page.render(collect.read(workdir)).split(f"<summary>{name}</summary>")[1].split("</details>")[0]
    assert re.findall("<div class=set><span>(.*?)</span><span>(.*?)</span>", block) == [(changed, "changed")]


def test_output_may_lie_elsewhere(workdir, tmp_path):
    assert report.write(workdir, tmp_path / "page.html")["report"] == str(tmp_path / "page.html")
    assert not (workdir / "report.html").exists() and not list(tmp_path.glob("*.tmp"))
    with pytest.raises(UserError, match="cannot be written"):
        report.write(workdir, tmp_path / "missing" / "page.html")


def test_a_half_written_last_line_is_skipped_and_a_damaged_one_named(workdir):
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5')
    assert len(collect.read(workdir).metrics) == 42
    path.write_text("{}\nbroken\n")
    with pytest.raises(UserError, match="metrics.jsonl, line 2"):
        collect.read(workdir)


@pytest.mark.parametrize("name, sentence", [("config.json", "holds no run"), ("metrics.jsonl", "missing or empty")])
def test_missing_files_are_told(workdir, name, sentence):
    (workdir / name).unlink()
    with pytest.raises(UserError, match=sentence):
        report.write(workdir)


def test_no_folder_and_damaged_files_are_told(workdir, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        report.write(tmp_path / "nowhere")
    (workdir / "evaluation.json").write_text("[1]")
    with pytest.raises(UserError, match="evaluation.json is damaged"):
        report.write(workdir)


def test_highlight_marks_whole_words_once_and_escapes():
    assert reasons.highlight("War & warfare: <War and Peace>", ["war", "War and Peace"]) == (
        "<mark>War</mark> &amp; warfare: &lt;<mark>War and Peace</mark>&gt;"
    )
    assert reasons.highlight("白色的裙", ["白色"]) == "<mark>白色</mark>的裙"
    assert reasons.highlight("İ war", ["war"]) == "İ <mark>war</mark>"


def test_the_launcher(workdir):
    run = [sys.executable, "-m", "launch.report"]
    done = subprocess.run([*run, f"--workdir={workdir}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["report"].endswith("report.html")
    failed = subprocess.run([*run, f"--workdir={workdir}/none"], capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.startswith("error: ") and len(failed.stderr.splitlines()) == 1


def test_rankings_are_told_too(workdir):
    score = {"value": 0.3247, "low": 0.3127, "high": 0.3369}
    about = {"split": "test", "definitions": {"hr@10": EVIL}}
    (workdir / "evaluation.json").write_text(json.dumps({EVIL: {"hr@10": score, "coverage@10": {"value": 0.5}}, "popularity": {}, "about": about}))
    text = page.render(collect.read(workdir))
    Checker().feed(text)
    assert ">0.3247<" in text and 'title="0.3127 to 0.3369"' in text and ">0.5000<" in text and "<td>popularity</td>" in text
    assert EVIL not in text and "Not measured yet" not in text
