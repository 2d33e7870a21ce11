"""Word lists learned from a dataset, beside the lexicons that the synthetic shop's reasons are made of."""

import json
import shutil

import pytest
from launched import run as launched

from rgjax.config import InputConfig, InspectConfig, PrepareConfig
from rgjax.data import length_bands
from rgjax.data.dataset import Dataset
from rgjax.data.demo_words import LEXICONS
from rgjax.data.derived import WordCodes
from rgjax.data.prepare import prepare
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode.code_words import CodeWords, spellings
from rgjax.errors import UserError
from rgjax.tasks import code_words
from rgjax.tasks.inspect import inspect


def looked(path, file):
    return inspect(InspectConfig(path=str(path), code_words=str(file), samples=0), InputConfig(), set())[0]["code_words"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Enough examples that words tell, and a vocabulary that has most words whole."""
    folder = tmp_path_factory.mktemp("words") / "shop"
    prepare(PrepareConfig(layout="demo", output=str(folder), vocab_size=2000, slots=8, demo_users=100, demo_items=40, demo_examples=900))
    return Dataset.open(folder)


def test_lists_are_words_of_the_values_that_decoding_can_pull(shop, tmp_path):
    dataset, tokenizer = shop, Tokenizer.load(shop.tokenizer_folder)
    found = looked(shop.folder, tmp_path / "words.json")
    assert json.loads((tmp_path / "words.json").read_text()) == found
    for name in ("topic", "emotion"):
        for value, listed in found[name].items():
            others = {w for v, of in LEXICONS[name].items() if v != value for words in of.values() for w in words}
            own = {w for words in LEXICONS[name][value].values() for w in words}
            assert own & set(listed) and not others & set(listed), (name, value, listed)
            assert len(listed) == len(set(listed)) <= code_words.MOST
        assert set(found[name]) == set(dataset.controls[name])
    pulled = CodeWords.of(WordCodes.open(str(tmp_path / "words.json"), dataset.controls, "code_words"), 1.0, 1, tokenizer, tokenizer.vocab_size)
    for code in found:
        columns = [k for k, (name, _) in enumerate(pulled.values) if name == code]
        assert len(columns) > 1 and pulled.is_token_VK[:, columns].sum(1).max() == 1  # no token is of two values


def example(reason, value, title="Lamp"):
    return {"reason": reason, "control": {"topic": value}, "item": {"title": title}}


def test_a_code_that_words_do_not_tell_has_no_list(shop):
    tokenizer = Tokenizer.load(shop.tokenizer_folder)
    assert all(len(spellings(word, tokenizer)[0]) == 1 for word in ("price", "look"))
    alike = [example(text, value) for text in ("price and look", "the look, its price") * 20 for value in ("a", "b")]
    assert code_words.lists("topic", ["a", "b"], alike, tokenizer) == {}
    assert code_words.lists("topic", ["a", "b"], [], tokenizer) == {}
    told = alike + [example("price", "a"), example("look", "b")] * 40
    assert code_words.lists("topic", ["a", "b"], told, tokenizer) == {"a": ["price"], "b": ["look"]}


def test_words_of_titles_tell_nothing(shop):
    """The reason says "look" of b, and "price" only as the title of a."""
    tokenizer = Tokenizer.load(shop.tokenizer_folder)
    told = [example("price is the budget", "a", "price"), example("a look, the budget", "b")] * 40
    found = code_words.lists("topic", ["a", "b"], told, tokenizer)
    assert "look" in found["b"] and "price" not in found.get("a", [])


def test_names_that_lists_cannot_hold_are_left_out_and_measured_codes_too(shop, tmp_path):
    tokenizer = Tokenizer.load(shop.tokenizer_folder)
    manifest = json.loads((shop.folder / "dataset.json").read_text())
    odd, filtered = {"controls": manifest["controls"] | {"tone": ["so so", "fine"]}}, {"filtered": {"from": "another"}}
    for name, changes in (("odd", odd), ("origin", filtered)):
        shutil.copytree(shop.folder, tmp_path / name)
        (tmp_path / name / "dataset.json").write_text(json.dumps(manifest | changes))
    found = code_words.write(Dataset.open(tmp_path / "odd"), tokenizer, str(tmp_path / "words.json"))
    assert "tone" not in found and "topic" in found
    with pytest.raises(UserError, match="written by a model; give the dataset"):
        code_words.write(Dataset.open(tmp_path / "origin"), tokenizer, str(tmp_path / "others.json"))
    banded = PrepareConfig(layout="demo", output=str(tmp_path / "bands"), vocab_size=600, slots=8, length_bands="words:8,14", demo_examples=160)
    prepare(banded)
    dataset = Dataset.open(tmp_path / "bands")
    assert length_bands.NAME in dataset.controls
    assert length_bands.NAME not in looked(tmp_path / "bands", tmp_path / "more.json")


def test_the_launcher_writes_and_refuses(shop, tmp_path):
    done = launched("launch.inspect", {"path": shop.folder, "code_words": tmp_path / "words.json", "samples": 0})
    assert done.returncode == 0 and "Words that tell topic apart" in done.stdout, done.stderr
    again = launched("launch.inspect", {"path": shop.folder, "code_words": tmp_path / "words.json"})
    assert again.returncode == 2 and "exists; give a new file" in again.stderr


def test_only_half_of_the_references_teaches(dataset, tokenizer, tmp_path, monkeypatch):
    """The judge of a report learns from the other half."""
    seen = []
    monkeypatch.setattr(code_words, "lists", lambda name, values, examples, tokenizer: seen.append(examples) or {"x": ["y"], "z": ["w"]})
    code_words.write(dataset, tokenizer, str(tmp_path / "words.json"))
    assert seen and all(examples == list(dataset.examples("train"))[0::2] for examples in seen)


@pytest.mark.parametrize("name, message", [("there.json", "exists"), ("no/where.json", "create .*no first")])
def test_files_that_cannot_be_written_are_refused(dataset_folder, tmp_path, name, message):
    (tmp_path / "there.json").write_text("kept")
    with pytest.raises(UserError, match=message):
        looked(dataset_folder, tmp_path / name)
    assert (tmp_path / "there.json").read_text() == "kept"


def test_what_is_no_dataset_or_has_no_codes_is_refused(dataset_folder, tmp_path):
    with pytest.raises(UserError, match="is none; give the folder of a dataset"):
        looked(tmp_path, tmp_path / "words.json")
    plain = tmp_path / "plain"
    shutil.copytree(dataset_folder, plain)
    manifest = json.loads((plain / "dataset.json").read_text())
    (plain / "dataset.json").write_text(json.dumps(manifest | {"controls": {}}))
    with pytest.raises(UserError, match="No control code of .* words tell apart"):
        code_words.write(Dataset.open(plain), None, str(tmp_path / "words.json"))
