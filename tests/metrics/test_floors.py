import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgjax.errors import UserError
from rgjax.metrics import fields, floors

ITEMS = st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=4), min_size=1, max_size=8)


def of(attributes, reason="r", **rest):
    return {"item": {"attributes": attributes} | rest.pop("item", {}), "reason": reason, **rest}


@settings(deadline=None)
@given(ITEMS, ITEMS)
def test_nearest_is_the_first_of_the_largest_jaccard_overlap(asked, known):
    def jaccard(a, b):
        a, b = set(a.items()), set(b.items())
        return len(a & b) / len(a | b) if a | b else 0.0

    expected = [int(np.argmax([jaccard(a, b) for b in known])) for a in asked]
    assert list(floors.nearest([of(a) for a in asked], [of(b) for b in known])) == expected


def test_nearest_does_not_depend_on_the_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    examples = [of({k: str(rng.integers(4)) for k in "abcde"}) for _ in range(60)]
    whole = floors.nearest(examples[:30], examples[30:])
    monkeypatch.setattr(floors, "_CHUNK_CELLS", 70)
    assert (floors.nearest(examples[:30], examples[30:]) == whole).all()


def test_the_item_outvotes_a_long_history():
    history = [{"title": f"h{i}", "attributes": {"g": f"g{i}"}} for i in range(5)]
    train = [of({"g": "war"}, "history", history=history), of({"g": "love"}, "item", item={"title": "Ronin"})]
    assert floors.retrieved_reasons([of({"g": "love"}, item={"title": "Ronin"}, history=history)], train) == ["item"]


def test_titles_alone_are_enough():
    train = [of({}, "bag", item={"title": "双肩背包"}), of({}, "violin", item={"title": "手工小提琴"})]
    assert floors.retrieved_reasons([of({}, item={"title": "演奏级小提琴"})], train) == ["violin"]
    train = [of({}, "bag", item={"title": "Leather bag"}), of({}, "violin", item={"title": "Handmade violin"})]
    assert floors.retrieved_reasons([of({}, item={"title": "violin, old"})], train) == ["violin"]


def test_random_reasons_come_from_train_and_repeat_with_the_seed():
    train = [of({}, f"r{i}") for i in range(50)]
    drawn = floors.random_reasons([of({})] * 20, train, seed=1)
    assert drawn == floors.random_reasons([of({})] * 20, train, seed=1) != floors.random_reasons([of({})] * 20, train, seed=2)
    assert set(drawn) <= {e["reason"] for e in train}


def test_template():
    example = {
        "item": {"title": "Ronin", "attributes": {"genre": ["Crime", "Action", "Heist"]}},
        "history": [{"title": "Fargo", "attributes": {"genre": "Crime"}}, {"title": "Heat", "attributes": {"genre": "Action"}}],
        "reason": "SECRET",
    }
    english, chinese = floors.template_reasons([example], "en")[0], floors.template_reasons([example], "zh")[0]
    assert english == 'Because you chose "Heat", you would enjoy "Ronin", known for Crime and Action.'
    assert "Heat" in chinese and "Ronin" in chinese and "Crime、Action" in chinese
    assert floors.template_reasons([{}], "en") == ["You would enjoy this item."]
    assert floors.template_reasons([of({"a": "1", "b": "2"})], "en") == ["You would enjoy this item, known for 1 and 2."]


def test_no_floor_reads_the_reference():
    train = [of({"a": "1"}, "one"), of({"a": "2"}, "two")]
    for write in (lambda e: floors.retrieved_reasons(e, train), lambda e: floors.random_reasons(e, train), _template):
        assert write([of({"a": "2"}, "mine")]) == write([of({"a": "2"}, "another")])


def _template(examples):
    return floors.template_reasons(examples, "en")


def test_an_empty_train_set_is_a_users_mistake():
    for write in (floors.random_reasons, floors.retrieved_reasons):
        with pytest.raises(UserError, match="train split is empty"):
            write([of({})], [])
    assert fields.reason({}) == ""
