"""Word lists learned from a dataset, beside the lexicons that the synthetic shop's reasons are made of."""

import json
import shutil

import pytest

from rgjax.config import InputConfig, InspectConfig, PrepareConfig
from rgjax.data.dataset import Dataset
from rgjax.data.demo_words import LEXICONS
from rgjax.data.derived import WordCodes
from rgjax.data.prepare import prepare
from rgjax.data.tokenizer import Tokenizer
from rgjax.decode.code_words import CodeWords
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
    assert not (pulled.is_token_VK[:, :2].all(1)).any()  # no token is of two values


def test_a_code_that_words_do_not_tell_has_no_list(tokenizer):
    texts = ["price and design", "the design, its price"] * 20
    examples = [{"reason": text, "control": {"topic": value}} for text in texts for value in ("a", "b")]
    assert code_words.lists("topic", ["a", "b"], examples, tokenizer) == {}
    assert code_words.lists("topic", ["a", "b"], [], tokenizer) == {}


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
