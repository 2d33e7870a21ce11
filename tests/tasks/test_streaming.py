"""Files of reasons: in order, continued where they stopped, refused when something else began them; mistakes are named by line."""

import itertools
import json
import tracemalloc

import pytest

from rgjax.errors import UserError
from rgjax.tasks import streaming

CONTROLS = {"style": ["short", "long"]}


def write(examples, first):
    """A deterministic stand-in for a model: what it writes depends on the example and its number only."""
    return [[f"{first + i}: {e['item']['title']} {e['control'].get('style')}"] for i, e in enumerate(examples)]


class Failing:
    """Writes like `write` until the power goes off."""

    def __init__(self, calls):
        self.calls, self.seen = calls, []

    def __call__(self, examples, first):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("power")
        self.seen += range(first, first + len(examples))
        return write(examples, first)


def lines(count):
    return [{"user": {"id": i}, "item": {"id": f"i{i}", "title": f"书 {i}"}} for i in range(count)]


def put(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def run(source, output, writer=write, *, settings=None, override=None, chunk=3, overwrite=False, shown=None):
    return streaming.generate_file(
        str(source), str(output), writer, settings=settings or {"step": 1}, controls=CONTROLS, override=override or {}, chunk=chunk,
        overwrite=overwrite, progress=(lambda *a: None) if shown is None else lambda *a: shown.append(a),
    )  # fmt: skip


@pytest.fixture
def source(tmp_path):
    return put(tmp_path / "in.jsonl", lines(11))


def test_one_line_each_in_order_and_nothing_else_left(source, tmp_path):
    shown = []
    result = run(source, tmp_path / "sub/out.jsonl", override={"style": "long"}, shown=shown)
    rows = [json.loads(line) for line in (tmp_path / "sub/out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [{"user": str(i), "item": f"i{i}", "reason": f"{i}: 书 {i} long"} for i in range(11)]
    assert shown == [(3, 11), (6, 11), (9, 11), (11, 11)]
    assert (result["reasons"], result["continued_at"]) == (11, 0)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["out.jsonl"]


def test_several_reasons_are_all_written(source, tmp_path):
    run(source, tmp_path / "out.jsonl", lambda examples, first: [["best", "second"]] * len(examples))
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0]) == {
        "user": "0",
        "item": "i0",
        "reason": "best",
        "reasons": ["best", "second"],
    }


def test_required_words_are_counted_and_those_that_cannot_be_written_refused_first(tmp_path):
    rows = [row | {"require": [word]} for row, word in zip(lines(3), ["书", "short", "gold"], strict=True)]
    ask = {"settings": {}, "controls": CONTROLS, "override": {"style": "short"}, "chunk": 2, "overwrite": False, "progress": lambda *a: None}
    source = put(tmp_path / "in.jsonl", rows)
    result = streaming.generate_file(source, str(tmp_path / "out.jsonl"), write, required=lambda e: e["require"], **ask)
    assert result["required_words"] == {"asked": 3, "written": 2}

    with pytest.raises(RuntimeError):
        streaming.generate_file(source, str(tmp_path / "cut.jsonl"), Failing(1), required=lambda e: e["require"], **ask)
    result = streaming.generate_file(source, str(tmp_path / "cut.jsonl"), write, required=lambda e: e["require"], **ask)
    assert result["continued_at"] == 2 and result["required_words"] == {"asked": 3, "written": 2}

    def refused(example):
        if example["require"] == ["gold"]:
            raise UserError("The required word 'gold' can't be written.")
        return []

    with pytest.raises(UserError, match="in.jsonl, line 3: The required word 'gold'"):
        streaming.generate_file(source, str(tmp_path / "other.jsonl"), write, required=refused, **ask)
    assert not list(tmp_path.glob("other*"))


@pytest.mark.parametrize("half", ["", '{"item": "i6", "rea', "书"[0]])
def test_an_interrupted_file_is_continued_and_equals_the_unbroken_one(source, tmp_path, half):
    run(source, tmp_path / "whole.jsonl")
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    first, second = Failing(2), Failing(99)
    with pytest.raises(RuntimeError):
        run(source, out, first)
    assert not out.exists() and first.seen == list(range(6))
    with partial.open("ab") as file:
        file.write(half.encode()[: len(half) + 1])
    assert run(source, out, second)["continued_at"] == 6
    assert second.seen == list(range(6, 11))  # nothing is written twice
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("out.jsonl.*"))


def test_a_file_that_was_whole_but_not_renamed_is_only_renamed(source, tmp_path):
    with pytest.raises(RuntimeError):
        run(source, tmp_path / "out.jsonl", Failing(3))  # nine lines
    with (tmp_path / "out.jsonl.partial").open("a") as file:
        file.write('{"reason": "9"}\n{"reason": "10"}\n')
    assert run(source, tmp_path / "out.jsonl", Failing(0))["continued_at"] == 11


def test_other_settings_or_another_input_are_refused(source, tmp_path):
    with pytest.raises(RuntimeError):
        run(source, tmp_path / "out.jsonl", Failing(1))
    before = (tmp_path / "out.jsonl.partial").read_bytes()
    other = put(tmp_path / "other.jsonl", lines(10))
    for arguments in ({"settings": {"step": 2}}, {"override": {"style": "short"}}):
        with pytest.raises(UserError, match="begun with another"):
            run(source, tmp_path / "out.jsonl", **arguments)
    with pytest.raises(UserError, match="begun with another"):
        run(other, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.partial").read_bytes() == before


def test_an_existing_output_is_kept_unless_told_otherwise(source, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        run(source, out)
    assert out.read_text() == "mine"
    run(source, out, overwrite=True)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 11
    with pytest.raises(UserError, match="is a folder"):
        run(source, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    "bad, message",
    [
        (b'{"item": ', "not JSON"),
        (b'{"item": {"title": "\xff"}}', "not UTF-8"),
        (b"", "empty"),
        (b"[]", "JSON object"),
        (b'{"user": {"id": 1}}', "'item' is missing"),
        (b'{"item": {"title": "a"}, "control": {"style": "loud"}}', "allowed are short, long"),
        (b'{"item": {"title": "a"}, "control": {"mood": "x"}}', "not declared"),
        (b'{"item": {"title": 3}}', "item.title"),
        (b'{"item": {"title": "a"}, "history": [{"rating": 3}]}', "history"),
        (b'{"a":' * 5000, "not JSON"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_written(tmp_path, bad, message):
    source = tmp_path / "in.jsonl"
    good = json.dumps(lines(1)[0]).encode()
    source.write_bytes(b"\n".join([good] * 4 + [bad, good]) + b"\n")
    writer = Failing(99)
    with pytest.raises(UserError, match="in.jsonl, line 5") as error:
        run(source, tmp_path / "out.jsonl", writer, chunk=2)
    text = str(error.value)
    assert message in text and "\n" not in text and text.endswith(".") and not text.endswith("..")
    assert not writer.seen and [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_empty_or_missing_input_is_named(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    for name, message in (("empty.jsonl", "is empty"), ("none.jsonl", "is no file")):
        with pytest.raises(UserError, match=message):
            run(tmp_path / name, tmp_path / "out.jsonl")


def test_inputs_are_cleaned_as_prepared_ones_are(tmp_path):
    raw = '\ufeff{"item": {"title": "A&amp;B  <b>\\ud83d</b>"}, "control": {"style": null}}'
    (tmp_path / "in.jsonl").write_text(raw, encoding="utf-8")
    seen = []
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", lambda examples, _: seen.extend(examples) or [["x"]])
    assert seen[0]["item"]["title"] == "A&B \ufffd" and seen[0]["control"] == {}


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for count in (500, 5000):
        source = put(tmp_path / f"{count}.jsonl", ({"item": {"id": i, "title": "x" * 500}} for i in range(count)))
        failing = Failing(count // 50 - 1)
        tracemalloc.start()
        with pytest.raises(RuntimeError):
            run(source, tmp_path / f"{count}.out", failing, chunk=50)
        failing.seen.clear()
        run(source, tmp_path / f"{count}.out", chunk=50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"reason": "a"}\n{"x": 1}\n', "line 2"),
        (b'{"reason": "a"}\n', "1 reasons for 2"),
        (b"{", "can't be read"),
        (b"\xff", "can't be read"),
    ],
)
def test_reasons_to_score_are_checked(tmp_path, content, message):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        streaming.read_reasons(path, 2)


def test_reasons_to_score_are_read_in_order(tmp_path):
    put(tmp_path / "out.jsonl", ({"reason": str(i)} for i in range(4)))
    assert streaming.read_reasons(tmp_path / "out.jsonl", 4) == ["0", "1", "2", "3"]
    assert streaming.read_reasons(tmp_path / "out.jsonl", 3, more=True) == ["0", "1", "2"]
    with pytest.raises(UserError, match="4 reasons for 3"):
        streaming.read_reasons(tmp_path / "out.jsonl", 3)
    assert list(itertools.islice(streaming.read_examples(put(tmp_path / "in", lines(5)), CONTROLS, {}, 3), 1))[0]["item"]["id"] == "i3"
