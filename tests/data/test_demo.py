"""The synthetic shop keeps its promises: seeds, cold users and items, and reasons that obey their control codes."""

import json
import re

import pytest

from rgjax.config import PrepareConfig
from rgjax.data import demo, demo_words
from rgjax.data.dataset import Dataset
from rgjax.data.prepare import prepare
from rgjax.errors import UserError

CONFIG = PrepareConfig(layout="demo", val_share=0.1, test_share=0.1, vocab_size=1200, slots=8, demo_examples=800, demo_users=200)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    import dataclasses

    output = tmp_path_factory.mktemp("demo") / "shop"
    prepare(dataclasses.replace(CONFIG, output=str(output)))
    data = Dataset.open(output)
    return data, json.loads((output / "truth.json").read_text()), {s: list(data.examples(s)) for s in ("train", "val", "test")}


def said(example, words, language):
    """Whether the reason, its titles taken out, says one of `words`."""
    text = example["reason"].lower()
    for title in [example["item"]["title"], *(e["title"] for e in example["history"])]:
        text = text.replace(title.lower(), " ")
    return any(re.search(rf"\b{w}\b", text) if language == "en" else w in text for w in words)


def test_it_says_it_is_synthetic(shop):
    data, truth, _ = shop
    assert data.manifest["synthetic"] and truth["synthetic"] and "synthetic" in data.manifest["name"]


def test_reasons_obey_their_control_codes(shop):
    _, truth, examples = shop
    for example in (e for es in examples.values() for e in es):
        control = example["control"]
        for name, values in truth["lexicons"].items():
            told = [v for v, words in values.items() if said(example, words[control["language"]], control["language"])]
            assert told == [control[name]], example
        sentences = len([s for s in re.split("[.。]", example["reason"]) if s.strip()])
        low, high = truth["sentences"][control["style"]]
        assert low <= sentences <= high
        assert example["reason"].isascii() == (control["language"] == "en")


def test_reasons_name_the_item_and_mostly_a_bought_title(shop):
    _, truth, examples = shop
    every = [e for es in examples.values() for e in es]
    assert all(e["item"]["title"] in e["reason"] for e in every)
    kind = lambda name: truth["items"][name]["category"]
    alike = [e for e in every if any(kind(h["item"]) == kind(e["item"]["id"]) for h in e["history"])]
    naming = [
        e for e in alike if any(h["title"] in e["reason"] and kind(h["item"]) == kind(e["item"]["id"]) for h in e["history"])
    ]
    assert 0.85 < len(naming) / len(alike) < 0.95 and len(alike) > 0.5 * len(every)
    assert 0.4 < sum(e["control"]["language"] == "en" for e in every) / len(every) < 0.6
    assert len({e["reason"] for e in every}) > 0.97 * len(every)


def test_cold_users_and_items_are_in_test_only(shop):
    _, truth, examples = shop
    users = {s: {e["user"]["id"] for e in es} for s, es in examples.items()}
    items = {s: {i for e in es for i in [e["item"]["id"], *(h["item"] for h in e["history"])]} for s, es in examples.items()}
    cold_users, cold_items = set(truth["cold"]["users"]), set(truth["cold"]["items"])
    assert cold_users == users["test"] and not cold_users & (users["train"] | users["val"])
    assert cold_items & items["test"] and not cold_items & (items["train"] | items["val"])


def test_histories_follow_tastes_and_time(shop):
    _, truth, examples = shop
    liked = total = 0.0
    for example in examples["train"]:
        tastes = truth["users"][example["user"]["id"]]["tastes"]
        best = sorted(tastes, key=tastes.get)[-2:]
        times = [h["time"] for h in example["history"]]
        assert times == sorted(times) and example["item"]["id"] not in [h["item"] for h in example["history"]]
        liked += sum(truth["items"][h["item"]]["category"] in best for h in example["history"])
        total += len(times)
    assert liked / total > 0.6  # two of eight categories would be 0.25 by chance


def test_seeds_differ_and_titles_do_not_repeat():
    import dataclasses

    items = demo.make_items(CONFIG)
    assert len({i.title(0) for i in items}) == len({i.title(1) for i in items}) == CONFIG.demo_items
    assert [i.title(0) for i in demo.make_items(dataclasses.replace(CONFIG, seed=1))] != [i.title(0) for i in items]
    assert demo.make_items(CONFIG) == items


def test_lexicons_do_not_overlap():
    for values in demo_words.LEXICONS.values():
        for language in ("en", "zh"):
            words = [w for lexicon in values.values() for w in lexicon[language]]
            assert len(words) == len(set(words))


def test_options_that_break_its_promises_are_refused():
    with pytest.raises(UserError, match="--split_by=item"):
        demo.open_source(PrepareConfig(layout="demo", split_by="item"), {}, None)
    with pytest.raises(UserError, match="--demo_items=9999"):
        demo.make_items(PrepareConfig(demo_items=9999))
