"""Public layouts: one small line of each, against what the example should say."""

import json

import pytest

from rgjax.config import PrepareConfig
from rgjax.data import cleaning, records
from rgjax.data.readers import llmxrec, open_source

REC = {
    "id": "x",
    "domain": "games",
    "dataset": "steam",
    "history": [{"title": 'u"Baldurs\\u2122 Caf\\xe9"', "attrs": ["[Action, RPG]"]}, {"title": "Rust", "attrs": ["nan"]}],
    "user": None,
    "item": {"title": "Robocraft", "attrs": ["[Free to Play]"]},
    "reason": "Dear player,\n\nRust again.",
}
LINES = {
    "llmxrec": ("train.jsonl", REC),
    "advertisegen": ("dev.jsonl", {"content": "类型#裤*风格#性感*风格#简约", "summary": "宽松的阔腿裤，好看"}),
    "taodescribe": ("val.jsonl", {"id": "t", "user_category": "4", "aspect": "a", "title": "小提琴", "title_id": 0, "reason": "高档演奏"}),
    "xrec": (
        "train.jsonl",
        {"id": "a", "uid": 47, "iid": 12, "title": "Drums", "user_profile": "likes books", "item_profile": "for fans", "explanation": "you would",
         "history_iids": [4, 5], "xrec_pred": "LEAK"},
    ),
}  # fmt: skip
WANTED = {
    "advertisegen": ("test", {"user": {}, "history": [], "item": {"title": "裤", "attributes": {"类型": ["裤"], "风格": ["性感", "简约"]}},
                              "reason": "宽松的阔腿裤，好看", "control": {}}),
    "taodescribe": ("val", {"user": {}, "history": [], "item": {"id": "0", "title": "小提琴"}, "reason": "高档演奏",
                            "control": {"audience": "4", "aspect": "a"}}),
    "xrec": ("train", {"user": {"id": "47", "profile": "likes books"}, "history": [{"item": "4"}, {"item": "5"}],
                       "item": {"id": "12", "title": "Drums", "description": "for fans"}, "reason": "you would", "control": {}}),
    "llmxrec": ("train", {"history": [{"title": "BaldursTM Café", "attributes": {"tags": ["Action", "RPG"]}}, {"title": "Rust"}],
                          "item": {"title": "Robocraft", "attributes": {"kind": "games", "tags": ["Free to Play"]}},
                          "reason": "Dear player, Rust again.", "control": {}}),
}  # fmt: skip


def rows_of(tmp_path, layout, lines):
    (tmp_path / LINES[layout][0]).write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    source = open_source(PrepareConfig(layout=layout, source=str(tmp_path)), {}, tmp_path)
    return source, list(source.rows)


@pytest.mark.parametrize("layout", LINES)
def test_a_line_becomes_the_example(tmp_path, layout):
    source, (row,) = rows_of(tmp_path, layout, [LINES[layout][1]])
    split, wanted = WANTED[layout]
    records.check(row.example, source.controls)
    got = cleaning.clean_example(row.example)
    if layout == "advertisegen":
        assert got["item"].pop("id").startswith("i")
    if layout == "llmxrec":
        assert got.pop("user")["id"].startswith("u")
    assert row.split == split and source.splits == {split} and got == wanted
    assert row.size == source.size


@pytest.mark.parametrize("layout", LINES)
def test_a_missing_column_is_named_with_those_there(tmp_path, layout):
    broken = dict(LINES[layout][1])
    name = {"llmxrec": "reason", "advertisegen": "summary", "taodescribe": "title", "xrec": "uid"}[layout]
    del broken[name]
    _, (row,) = rows_of(tmp_path, layout, [broken])
    assert f"'{name}' is missing; the line has {', '.join(broken)}" in str(row.problem)


def test_equal_histories_are_one_user(tmp_path):
    other = REC | {"history": REC["history"][:1]}
    _, rows = rows_of(tmp_path, "llmxrec", [REC, REC | {"reason": "else"}, other])
    ids = [r.example["user"]["id"] for r in rows]
    assert ids[0] == ids[1] != ids[2]


def test_lost_words_go_from_training_reasons_only(tmp_path):
    line = {"content": "类型#裤", "summary": "裤脚设计<UNK>张开的<UNK><UNK>，好看"}
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = list(open_source(PrepareConfig(layout="advertisegen", source=str(tmp_path)), {}, tmp_path).rows)
    assert [(r.split, r.example["reason"]) for r in rows] == [("train", "裤脚设计张开的，好看"), ("test", line["summary"])]


def test_genres_and_titles():
    assert llmxrec.genres(["Action Sci-Fi"], split_words=True) == ["Action", "Sci-Fi"]
    assert llmxrec.genres(["news", "newsworld"], split_words=False) == ["news", "newsworld"]
    assert llmxrec.plain_title("u'It\\u2019s'") == "It’s" and llmxrec.plain_title('u "x"') == 'u "x"'


def test_bad_bytes_and_bad_json_are_problems_of_their_line(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"item": {"id": 1}}\n\n' + b'{"reason": "\xff"}\n' + b"[1\n" + b'{"a":' * 3000 + b"\n")
    rows = list(open_source(PrepareConfig(source=str(path)), {}, tmp_path).rows)
    assert rows[0].example == {"item": {"id": 1}}
    assert [r.where for r in rows] == [f"raw.jsonl, line {n}" for n in (1, 3, 4, 5)]
    assert "byte 13 is not UTF-8" in str(rows[1].problem) and all("not JSON" in str(r.problem) for r in rows[2:])
