"""Prompts: what is cut first, what is never cut, and that no text of the input can act as markup."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.config import InputConfig
from rgjax.data import slots
from rgjax.data.template import Template
from rgjax.data.tokenizer import MARKERS, train_bpe
from rgjax.errors import UserError

CONTROLS = {"style": ["short", "long"], "tone": ["warm"]}
CONFIG = InputConfig(length=160, target_length=32)
EXAMPLE = {
    "user": {"profile": "likes slow films and long walks", "attributes": {"age": 34, "likes": ["war", "jazz"]}},
    "history": [{"title": f"Film number {i}", "attributes": {"genre": ["war", "drama"]}} for i in range(6)],
    "item": {
        "title": "Ronin",
        "attributes": {"genre": ["action", "crime"], "brand": "UA"},
        "description": "A taut film of spies in Paris, and of one case",
    },
    "control": {"style": "short", "tone": "warm"},
    "reason": 'You liked "Film number 5", so Ronin, an action film, is for you.',
}
TEXTS = ["Film number 12 34 You liked slow films genre war drama crime 因为您喜欢流浪地球", "age: likes brand style"] * 9
MARKUP = ("<h3>", "<|reason|>", "</s>", "<item>", "<a1>", "<|style=short|>", "<s>", "<pad>", "<", "|>", "h0>", "/s>")
WORD = st.one_of(
    st.sampled_from(MARKUP),
    st.sampled_from(["流浪地球", "Heat", "; ", " "]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
)
TEXT = st.lists(WORD, min_size=1, max_size=6).map("".join)
ATTRIBUTES = st.dictionaries(TEXT, st.one_of(TEXT, st.lists(TEXT, max_size=3), st.integers()), max_size=3)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 420, 4, CONTROLS)


@st.composite
def examples(draw):
    history = draw(st.lists(st.fixed_dictionaries({"title": TEXT, "attributes": ATTRIBUTES}), max_size=8))
    title = draw(TEXT)
    reason = draw(TEXT) + title + draw(TEXT) + (history[-1]["title"] if history else "")
    item = {"title": title, "attributes": draw(ATTRIBUTES), "description": draw(TEXT)}
    control = draw(st.sampled_from([{}, {"style": "long"}, {"style": "short", "tone": "warm"}, {"tone": None}]))
    user = {"profile": draw(TEXT), "attributes": draw(ATTRIBUTES)}
    return {"user": user, "history": history, "item": item, "control": control, "reason": reason}


def special_tokens(tokenizer, ids):
    """The special tokens among `ids`, as text."""
    table = tokenizer.backend.get_added_tokens_decoder()
    return [table[i].content for i in ids if i in table]


@pytest.mark.parametrize("copy_slots", ["none", "titles", "all"])
@given(example=examples(), length=st.integers(48, 220))
def test_only_the_template_writes_markup_and_the_budget_holds(tokenizer, copy_slots, example, length):
    config = dataclasses.replace(CONFIG, length=length, copy_slots=copy_slots)
    template = Template(tokenizer, config)
    rendered = template.render(example)
    prompt = special_tokens(tokenizer, rendered.prompt_ids)
    assert len(rendered.prompt_ids) <= template.budget == length - 32
    assert rendered.prompt_ids[0] == tokenizer.bos_id
    assert prompt[-1] == "<|reason|>" and prompt.count("<|reason|>") == prompt.count("<s>") == 1
    assert "</s>" not in prompt and "<pad>" not in prompt and "<item>" not in prompt
    sections = [t for t in prompt if t in MARKERS]
    assert sections == [m for m in ("<|user|>", "<|history|>", "<|item|>", "<|about|>", "<|control|>", "<|reason|>") if m in sections]
    wanted = [f"<|{n}={v}|>" for n, v in sorted(example["control"].items()) if v]
    assert [t for t in prompt if "=" in t] == wanted
    pointed = [t for t in prompt if t not in (*MARKERS, "<s>", *wanted)]
    assert len(pointed) == len(set(pointed)) and set(pointed) == set(rendered.surfaces) - {"<item>"}
    target = special_tokens(tokenizer, rendered.target_ids)
    ended = target[-1:] == ["</s>"]
    assert set(target[:-1] if ended else target) <= set(rendered.surfaces)
    assert len(rendered.target_ids) <= 32 and (ended or (len(rendered.target_ids) == 32 and rendered.truncated))
    if ended and copy_slots == "none":
        assert tokenizer.decode(rendered.target_ids) == slots.neutral(example["reason"])


def text_of(tokenizer, example=EXAMPLE, **changes):
    rendered = Template(tokenizer, dataclasses.replace(CONFIG, **changes)).render(example)
    return tokenizer.decode(rendered.prompt_ids), rendered


def test_the_whole_prompt_reads_as_documented(tokenizer):
    example = EXAMPLE | {"history": EXAMPLE["history"][:2], "reason": 'As "Film number 1" and Ronin.'}
    text, rendered = text_of(tokenizer, example, length=400)
    assert text == (
        "<|user|>likes slow films and long walks age: 34; likes: war; likes: jazz"
        "<|history|><h1>Film number 0 (war; drama)<h0>Film number 1 (war; drama)"
        "<|item|>Ronin; genre: action, crime; brand: UA"
        "<|about|>A taut film of spies in Paris, and of one case"
        "<|control|><|style=short|><|tone=warm|><|reason|>"
    )
    assert tokenizer.decode(rendered.target_ids) == 'As "<h0>" and <item>.'
    assert not rendered.truncated and rendered.target_ids[-1] == tokenizer.eos_id


def test_history_goes_first_then_the_description_then_the_profile_then_attributes(tokenizer):
    """Shrinking the room token by token, each part starts to shrink only when the one before is gone."""
    example = EXAMPLE | {"reason": "For you."}
    full, seen = text_of(tokenizer, example, length=900)[0], []
    for length in range(400, 48, -1):
        text, rendered = text_of(tokenizer, example, length=length)
        assert "<|item|>Ronin" in text and "<|style=short|><|tone=warm|><|reason|>" in text
        assert rendered.truncated == (text != full)
        gone = {
            "history": "Film number 0" not in text,
            "description": "case<|" not in text,
            "profile": "jazz<|" not in text,
            "attributes": "brand: UA<|" not in text,
        }
        state = "".join(name[0] for name, cut in gone.items() if cut)
        if not seen or seen[-1] != state:
            seen.append(state)
        if "d" in state:
            assert "<|history|>" not in text or "p" not in state
        if "a" in state:
            assert "<|user|>" not in text and "<|about|>" not in text and "<|history|>" not in text
    assert seen == ["", "h", "hd", "hdp", "hdpa"]


def test_the_oldest_events_go_first_and_cannot_be_pointed_at(tokenizer):
    reason = {"reason": "After Film number 0 and Film number 5"}
    shown, rendered = text_of(tokenizer, EXAMPLE | reason, length=400)
    assert "<h0>Film number 5" in shown and "Film number 0" in shown
    assert set(rendered.surfaces) == {"<item>", "<h0>", "<h1>", "<h2>", "<h3>"}  # the vocabulary has four history slots
    for length in range(100, 400, 10):
        text, rendered = text_of(tokenizer, EXAMPLE | reason, length=length)
        kept = [i for i in range(6) if f"Film number {i}" in text]
        assert kept == list(range(6 - len(kept), 6))
        assert {s for s in rendered.surfaces if s != "<item>"} == {f"<h{5 - i}>" for i in kept if i > 1}
    text, _ = text_of(tokenizer, length=400, max_history=2)
    assert "Film number 3" not in text and "Film number 4" in text


def test_order_by_overlap_puts_the_nearest_last(tokenizer):
    history = [
        {"title": "Near", "attributes": {"g": ["action", "crime"]}},
        {"title": "Half", "attributes": {"g": ["crime", "war"]}},
        {"title": "Far"},
    ]
    text, _ = text_of(tokenizer, EXAMPLE | {"history": history}, length=400, history_order="overlap")
    assert text.index("Far") < text.index("Half") < text.index("Near")


def test_copying_everything_points_at_attribute_values(tokenizer):
    text, rendered = text_of(tokenizer, length=400, copy_slots="all")
    assert "genre: <a0>action, <a1>crime; brand: <a2>UA" in text
    assert tokenizer.decode(rendered.target_ids) == 'You liked "<h0>", so <item>, an <a0> film, is for you.'


def test_controls_can_be_left_out(tokenizer):
    rendered = Template(tokenizer, CONFIG).render(EXAMPLE, with_control=False)
    assert "<|control|>" not in tokenizer.decode(rendered.prompt_ids)


def test_an_encoder_has_the_whole_length_for_the_prompt(tokenizer):
    assert Template(tokenizer, CONFIG, "seq2seq").budget == 160


@pytest.mark.parametrize("length, target_length", [(64, 128), (64, 60)])
def test_no_room_for_the_prompt_is_a_users_mistake(tokenizer, length, target_length):
    with pytest.raises(UserError, match="--target_length"):
        Template(tokenizer, dataclasses.replace(CONFIG, length=length, target_length=target_length))
