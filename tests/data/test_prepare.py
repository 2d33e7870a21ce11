"""Preparing a dataset: contents, determinism, the report, and what is refused."""

import hashlib
import json
import pathlib

import pytest

from rgjax.config import PrepareConfig
from rgjax.data import digest
from rgjax.data import prepare as prepare_lib
from rgjax.data.dataset import Dataset
from rgjax.data.shards import ShardWriter
from rgjax.data.tokenizer import Tokenizer
from rgjax.errors import UserError


def example(i: int, **change) -> dict:
    words = f"reason number {i} for you, 第{i}个理由，好"
    base = {
        "user": {"id": f"u{i % 40}"},
        "item": {"id": f"i{i}", "title": f"Thing {i}"},
        "history": [{"item": "h1", "title": "Old"}],
        "reason": words,
    }
    return base | change


def write(path: pathlib.Path, examples) -> pathlib.Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in examples), encoding="utf-8")
    return path


def run(tmp_path, examples, **options) -> Dataset:
    source = write(tmp_path / "raw.jsonl", examples)
    config = PrepareConfig(**({"source": str(source), "output": str(tmp_path / "out"), "vocab_size": 400, "slots": 4} | options))
    prepare_lib.prepare(config)
    return Dataset.open(config.output)


def refused(tmp_path, examples, **options) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path, examples, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw.jsonl"], "a failed run leaves nothing"
    return str(caught.value)


def sums(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_example_comes_back_once_and_users_keep_to_a_split(tmp_path):
    data = run(tmp_path, [example(i) for i in range(300)], shard_examples=60, val_share=0.2, test_share=0.2)
    data.verify()
    seen = {split: list(data.examples(split)) for split in ("train", "val", "test")}
    assert {e["item"]["id"] for es in seen.values() for e in es} == {f"i{i}" for i in range(300)}
    assert {s: len(es) for s, es in seen.items()} == data.manifest["counts"] and sum(map(len, seen.values())) == 300
    users = [{e["user"]["id"] for e in es} for es in seen.values()]
    assert all(users) and not (users[0] & users[1] | users[0] & users[2] | users[1] & users[2])
    original = {f"i{i}": example(i) for i in range(300)}
    assert all(e == original[e["item"]["id"]] | {"control": {}} for es in seen.values() for e in es)
    source = data.source("train")
    assert len(data.manifest["splits"]["train"]) == -(-len(source) // 60)
    assert [source[i] for i in (0, 61, len(source) - 1)] == source.__getitems__([0, 61, len(source) - 1])
    report = data.manifest["report"]
    assert report["distinct"] == {"users": 40, "items": 300, "pairs": 300, "reasons": 300} and not report["warnings"]


def test_two_runs_give_the_same_bytes_and_hold_no_path(tmp_path):
    examples = [example(i) for i in range(200)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, examples, shard_examples=50)
    assert sums(tmp_path / "a" / "out") == sums(tmp_path / "b" / "out")
    assert str(tmp_path) not in (tmp_path / "a" / "out" / "dataset.json").read_text()


def test_several_processes_give_the_bytes_of_one(tmp_path, monkeypatch):
    examples = [example(i) if i % 50 else "{broken" for i in range(400)]
    (tmp_path / "one").mkdir(), (tmp_path / "many").mkdir()
    run(tmp_path / "one", examples, max_bad_share=0.1)
    monkeypatch.setattr("rgjax.data.digest._POOL_BYTES", 0)
    monkeypatch.setattr("rgjax.data.readers.jsonl._CHUNK_BYTES", 3000)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    used = []
    pooled = digest._ordered
    monkeypatch.setattr("rgjax.data.digest._ordered", lambda *rest: used.append(rest) or pooled(*rest))
    run(tmp_path / "many", examples, max_bad_share=0.1)
    assert sums(tmp_path / "one" / "out") == sums(tmp_path / "many" / "out")
    assert used
    (tmp_path / "bad").mkdir()
    assert "max_bad_share" in refused(tmp_path / "bad", examples, max_bad_share=0.001)


def test_report_counts_what_it_is_told(tmp_path):
    examples = [example(i) for i in range(200)]
    examples += [example(3), example(4, control={"style": "b"})]  # duplicates, the second but for its control code
    examples += [example(500, reason="no"), example(501, reason="x" * 3000), example(502, reason=""), "{not json"]
    examples += [
        example(503, reason=examples[0]["reason"]),
        example(504, history=[{"item": "i504"}]),
        example(505, reason="cafÃ© au lait"),
    ]
    data = run(tmp_path, examples, controls="style=a|b", max_bad_share=0.05)
    report = data.manifest["report"]
    dropped = {name: entry["count"] for name, entry in report["dropped"].items()}
    assert dropped == {"duplicate": 2, "reason too short": 1, "reason too long": 1, "empty reason": 1, "malformed": 1}
    assert {n: e["count"] for n, e in report["warnings"].items()} == {
        "reason seen before": 1,
        "candidate in its own history": 1,
        "encoding trouble": 1,
    }
    assert report["read"] == 209 and report["kept"] == 203
    assert report["dropped"]["malformed"]["example"].startswith("raw.jsonl, line 206: it is not JSON")


def test_splitting_by_item_reports_users_in_several_splits(tmp_path):
    examples = [example(i) for i in range(200)]
    data = run(tmp_path, examples, split_by="item", val_share=0.3, test_share=0.3)
    spread = {}
    for split in ("train", "val", "test"):
        for e in data.examples(split):
            spread.setdefault(e["user"]["id"], set()).add(split)
    warnings = data.manifest["report"]["warnings"]
    assert warnings["user in several splits"]["count"] == sum(len(s) > 1 for s in spread.values()) > 0
    assert "user-item pair in several splits" not in warnings


def test_one_bad_line_is_skipped_up_to_the_share_then_refused(tmp_path):
    examples = [example(i) for i in range(199)] + ['{"item": ']
    assert run(tmp_path, examples, max_bad_share=0.005).manifest["report"]["kept"] == 199
    (tmp_path / "other").mkdir()
    message = refused(tmp_path / "other", examples, max_bad_share=0.004)
    assert "raw.jsonl, line 200" in message and "--max_bad_share=0.004" in message


@pytest.mark.parametrize(
    "examples, options, named",
    [
        ([example(i, control={"style": "loud"}) for i in range(5)], {"controls": "style=calm"}, "allowed are calm"),
        ([example(i, user={}) for i in range(150)], {}, "'user.id' is missing"),
        ([{"text": "x"}] * 200, {}, "100 of 100 examples read are malformed"),
        ([], {}, "no rows at all"),
        ([example(0)], {"output": "raw.jsonl"}, "exists already"),
        ([example(0)], {"layout": "llmxrec"}, "is not a folder"),
        ([example(0)], {"source": "absent"}, "does not exist"),
        ([example(i) for i in range(9)], {"tokenizer": "absent"}, "holds no tokenizer.json"),
        ([example(i) for i in range(9)], {"split_by": "source"}, "names no split"),
    ],
)
def test_refusals_say_what_to_mend(tmp_path, monkeypatch, examples, options, named):
    monkeypatch.chdir(tmp_path)
    assert named in refused(tmp_path, examples, **options)


def test_overwriting_needs_a_dataset_and_a_failure_keeps_the_old_one(tmp_path):
    good = [example(i) for i in range(50)]
    before = sums(run(tmp_path, good).folder)
    with pytest.raises(UserError, match="--overwrite"):
        run(tmp_path, good)
    with pytest.raises(UserError, match="malformed"):
        run(tmp_path, ["{"] * 9, overwrite=True)
    assert sums(tmp_path / "out") == before
    assert run(tmp_path, good + [example(99)], overwrite=True).manifest["report"]["kept"] == 51
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw.jsonl"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="not a dataset folder"):
        run(tmp_path, good, output=str(tmp_path / "mine"), overwrite=True)


def test_a_full_disk_is_told_as_one_and_leaves_nothing(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *_):
            pass

        def write(self, record):
            raise RuntimeError("INTERNAL: No space left on device; writing file")

        close = lambda self: None

    monkeypatch.setattr("rgjax.data.shards.ArrayRecordWriter", Full)
    with pytest.raises(OSError) as caught:
        run(tmp_path, [example(i) for i in range(9)])
    assert caught.value.errno == 28 and [p.name for p in tmp_path.iterdir()] == ["raw.jsonl"]


def test_a_tokenizer_folder_is_taken_over(tmp_path):
    first = run(tmp_path, [example(i) for i in range(100)])
    again = run(tmp_path, [example(i) for i in range(100)], tokenizer=str(first.tokenizer_folder), output=str(tmp_path / "two"))
    assert again.manifest["tokenizer"]["sha256"] == first.manifest["tokenizer"]["sha256"]


def test_damaged_manifests_are_named(tmp_path):
    data = run(tmp_path, [example(i) for i in range(80)])
    said, shard = data.manifest, data.manifest["splits"]["train"][0]
    lacking = [{name: value for name, value in said.items() if name != gone} for gone in ("splits", "tokenizer", "controls")]
    odd = [{"splits": 5}, {"splits": {"train": [1]}}, {"splits": {"train": [{"file": "a"}]}}, {"tokenizer": {"folder": ".."}}, {"tokenizer": 5}]
    for body in (*lacking, *(said | one for one in odd)):
        (data.folder / "dataset.json").write_text(json.dumps(body))
        with pytest.raises(UserError, match="dataset.json is damaged .*; prepare the dataset again"):
            Dataset.open(data.folder)
    for file in (str(data.folder / shard["file"]), f"../{data.folder.name}/{shard['file']}", "..", "", 5):
        (data.folder / "dataset.json").write_text(json.dumps(said | {"splits": {"train": [shard | {"file": file}]}}))
        with pytest.raises(UserError, match="lists the shard .* no file name of its own"):
            Dataset.open(data.folder)


def test_damaged_datasets_are_named(tmp_path):
    data = run(tmp_path, [example(i) for i in range(80)])
    assert Dataset.open(data.folder).fingerprint == data.fingerprint
    shard = data.folder / data.manifest["splits"]["train"][0]["file"]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"{shard.name} has .* bytes instead of"):
        Dataset.open(data.folder)
    first = whole.find(b"\x28\xb5\x2f\xfd")  # a zstd frame: some record's bytes
    shard.write_bytes(whole[:first] + bytes(40) + whole[first + 40 :])
    with pytest.raises(UserError, match="damaged"):
        Dataset.open(data.folder).verify()
    with pytest.raises(UserError, match=f"{shard.name} is unreadable"):
        list(Dataset.open(data.folder).examples("train"))
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        Dataset.open(data.folder)
    with pytest.raises(UserError, match="not a dataset folder"):
        Dataset.open(tmp_path)
    with pytest.raises(UserError, match="no 'test' examples"):
        shard.write_bytes(whole)
        run(tmp_path, [example(i) for i in range(30)], test_share=0.0, output=str(tmp_path / "two")).source("test")


def test_shards_round_trip_any_bytes(tmp_path):
    records = [bytes([i % 256]) * (i * 37 % 501) for i in range(1, 120)]
    writer = ShardWriter(tmp_path, "val", 50)
    for record in records:
        writer.write(record)
    listed = writer.close()
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    assert [s["file"] for s in listed] == [f"val-{i:05d}-of-00003.array_record" for i in range(3)]
    assert [s["examples"] for s in listed] == [50, 50, 19]
    source = ArrayRecordDataSource([str(tmp_path / s["file"]) for s in listed])
    assert [source[i] for i in range(len(source))] == records
    assert all(s["sha256"] == hashlib.sha256((tmp_path / s["file"]).read_bytes()).hexdigest() for s in listed)


def test_one_vocabulary_can_be_learnt_from_several_datasets(tmp_path):
    """Chinese texts alone leave English to letters, and the other way round; together both are words, with all control codes."""
    english, chinese = tmp_path / "english", tmp_path / "chinese"
    english.mkdir(), chinese.mkdir()
    spoken = {"reason": "wonderful recommendation, recommended wonderfully", "control": {"style": "short"}}
    said = {"reason": "强烈推荐给您的好产品", "control": {"style": "长"}}
    texts = [example(i, item={"id": f"e{i}", "title": f"Wonderful {i}"}, **spoken) for i in range(60)]
    first = run(english, texts, controls="style=short|long", drop_duplicates=False)
    others = [example(i, item={"id": f"c{i}", "title": f"产品{i}"}, **said) for i in range(60)]
    options = {"controls": "style=长", "drop_duplicates": False, "vocab_size": 500}
    alone = run(chinese, others, output=str(chinese / "alone"), **options)
    both = run(chinese, others, output=str(chinese / "both"), tokenizer_with=str(first.folder), **options)
    size = lambda data, text: len(Tokenizer.load(data.tokenizer_folder).encode(text))
    assert size(both, "wonderful recommendation") < size(alone, "wonderful recommendation")
    assert size(both, "强烈推荐给您") < size(first, "强烈推荐给您")
    tokenizer = Tokenizer.load(both.tokenizer_folder)
    assert all(tokenizer.id_of(f"<|style={value}|>") is not None for value in ("short", "long", "长"))
    assert both.controls == {"style": ["长"]} and both.manifest["config"]["tokenizer_with"] == "out"
    again = run(chinese, others, output=str(chinese / "again"), tokenizer_with=str(first.folder), **options)
    assert sums(both.folder) == sums(again.folder)


def test_another_datasets_texts_teach_no_vocabulary_that_is_given(tmp_path):
    options = {"tokenizer": str(tmp_path / "x"), "tokenizer_with": str(tmp_path / "y")}
    assert "--tokenizer_with" in refused(tmp_path, [example(0)], **options)
    assert "not a dataset folder" in refused(tmp_path, [example(0)], tokenizer_with=str(tmp_path / "y"))


def test_lengths_become_a_control_code(tmp_path):
    texts = ["one two", "one two three", "one two three four", "one two three four five six"]
    rows = [example(i, reason=texts[i % 4] + "." * (i // 4), control={"tone": "warm"}) for i in range(40)]
    data = run(tmp_path, rows, controls="tone=warm", length_bands="words:3,5", val_share=0.2)
    band = {2: "under3", 3: "3to4", 4: "3to4", 6: "from5"}
    found = [e for split in ("train", "val", "test") for e in data.examples(split)]
    assert len(found) == 40 and all(e["control"] == {"tone": "warm", "length": band[len(e["reason"].split())]} for e in found)
    assert data.controls == {"tone": ["warm"], "length": ["under3", "3to4", "from5"]}
    assert data.manifest["derived_controls"] == {"length": {"how": "measured", "unit": "words", "bounds": [3, 5]}}
    tokenizer = Tokenizer.load(data.tokenizer_folder)
    assert all(tokenizer.id_of(f"<|length={value}|>") is not None for value in data.controls["length"])


def test_a_declared_length_is_not_derived_too(tmp_path):
    assert "--length_bands=30,60 is no" in refused(tmp_path, [example(0)], length_bands="30,60")
    assert "which the data declares" in refused(tmp_path, [example(0)], controls="length=a|b", length_bands="words:5")
    assert "--length_bands=words:5 is about reasons" in refused(tmp_path, [example(0)], layout="shop", length_bands="words:5")
