"""Rewards for written reasons: what each one likes, and mistakes told in a sentence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.config import DecodeConfig, RewardConfig
from rgjax.data.dataset import Dataset
from rgjax.data.length_bands import LengthBands
from rgjax.errors import UserError
from rgjax.metrics import features, suite
from rgjax.metrics.outside import Ngrams
from rgjax.tasks import judges, rewards
from rgjax.tasks.rewards import Rewards
from rgjax.tasks.run import Run


def test_a_text_in_its_band_has_all_of_the_reward_and_others_less_with_the_distance():
    bands = LengthBands("words", (3, 6))
    text = lambda n: " ".join(["word"] * n)
    assert [rewards.in_band(bands, "3to5", text(n)) for n in (1, 2, 3, 5, 6, 8)] == [1 / 3, 1 / 2, 1, 1, 1 / 2, 1 / 4]
    assert rewards.in_band(bands, "from6", text(500)) == 1 and rewards.in_band(bands, "under3", text(0)) == 1
    assert rewards.in_band(bands, None, text(9)) == 1  # none was asked for


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_fresh_words_by_brute_force(letters):
    grams = [tuple(letters[i : i + 3]) for i in range(len(letters) - 2)]
    wanted = len({*grams}) / len(grams) if grams else float(len(letters) > 0)
    assert rewards.fresh_words(" ".join(letters)) == pytest.approx(wanted)


def test_who_rewards_and_who_reports_learn_from_different_references():
    read = [set(judges.lessons(range(11), half)) for half in (judges.FOR_REPORTS, judges.FOR_REWARDS)]
    assert not read[0] & read[1] and read[0] | read[1] == set(range(11))


def test_codes_are_recognised_by_a_judge_that_learned_from_references(dataset_folder):
    dataset = Dataset.open(dataset_folder)
    judge = Rewards(RewardConfig(rewards="codes=2,grounding=1,repetition=1"), dataset)
    assert judge.names == ["codes", "grounding", "repetition"] and judge.numbers.tolist() == [2, 1, 1]
    unread = judges.lessons(list(dataset.examples("train")), judges.FOR_REPORTS)  # which this judge did not learn from
    examples = [e for e in unread if len(e["control"].get("emotion", "")) > 0][:20]
    values = dataset.controls["emotion"]
    turned = [e | {"control": {"emotion": next(v for v in values if v != e["control"]["emotion"])}} for e in examples]
    alone = [e | {"control": {"emotion": e["control"]["emotion"]}} for e in examples]
    texts = [e["reason"] for e in examples]
    right, wrong = (judge(asked, texts)[:, 0].mean() for asked in (alone, turned))
    assert right > 0.6 > 0.4 > wrong
    assert judge([examples[0] | {"control": {}}], ["Some text."])[0, 0] == 1


def test_fluency_is_the_log_probability_under_trigrams_of_its_half_of_the_references(dataset_folder):
    dataset = Dataset.open(dataset_folder)
    train = list(dataset.examples("train"))
    judge = Rewards(RewardConfig(rewards="fluency=1"), dataset)
    cut = features.tokenizer(suite.detect_language(train))
    trigrams = Ngrams.fit([cut(e["reason"]) for e in judges.lessons(train, judges.FOR_REWARDS)])
    unread = judges.lessons(train, judges.FOR_REPORTS)[:8]
    texts = [*(e["reason"] for e in unread), ""]
    found = judge([*unread, unread[0]], texts)[:, 0]
    np.testing.assert_allclose(np.exp(-found), [trigrams.perplexity([cut(text)]) for text in texts])
    turned = judge(unread, ["".join(reversed(text)) for text in texts[:-1]])[:, 0]
    assert (turned < found[:-1]).all() and (found <= 0).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "--rewards is missing"),
        ("style=1", "--rewards has 'style'"),
        ("grounding", "write grounding=NUMBER"),
        ("grounding=nan", "write grounding=NUMBER"),
        ("grounding=1,grounding=2", "twice"),
        ("discriminator=1", "--discriminator_from"),
        ("length=1", "--length_bands"),
    ],
)
def test_mistakes_are_told(dataset_folder, given, words):
    with pytest.raises(UserError, match=words):
        Rewards(RewardConfig(rewards=given), Dataset.open(dataset_folder))


def test_a_discriminator_that_judges_nothing_is_refused(dataset_folder):
    with pytest.raises(UserError, match="judges nothing"):
        Rewards(RewardConfig(rewards="grounding=1", discriminator_from="x"), Dataset.open(dataset_folder))


def test_a_reward_that_is_no_number_is_told(dataset_folder):
    judge = Rewards(RewardConfig(rewards="grounding=1,repetition=1"), Dataset.open(dataset_folder))
    judge.scores[1] = lambda examples, texts: [1.0, math.nan]
    example = next(iter(Dataset.open(dataset_folder).examples("train")))
    with pytest.raises(UserError, match="'repetition' of the text 'second' is nan"):
        judge([example, example], ["first", "second"])
    judge.scores[1] = lambda examples, texts: [1.0, 0.5]
    assert np.isfinite(judge([example, example], ["first", "second"])).all()


def test_a_dataset_is_opened_where_a_reward_learns_from_it_and_read_once(dataset_folder, monkeypatch):
    opened, read, own = [], [], judges.references
    monkeypatch.setattr(judges, "references", lambda *asked: read.append(1) or own(*asked))
    opens = lambda: opened.append(1) or Dataset.open(dataset_folder)
    Rewards(RewardConfig(rewards="grounding=1,repetition=1"), opens)
    assert not opened
    Rewards(RewardConfig(rewards="codes=1,fluency=1"), opens)
    assert opened == read == [1]


def test_reasons_are_chosen_without_the_dataset_where_no_reward_learns(unbroken_run, monkeypatch):
    opened = Run.open(unbroken_run)
    monkeypatch.setattr(Run, "dataset", lambda *_: pytest.fail("opened"))
    run = rewards.choosing(opened, "best", RewardConfig(rewards="repetition=1"))
    assert run.liked([{}, {}], ["a b c a b c", "a b c d e f"]).tolist() == [0.75, 1.0]


def test_the_best_of_several_is_the_one_rewards_like(unbroken_run):
    opened = Run.open(unbroken_run)
    examples = list(opened.dataset().examples("val"))[:3]
    options = {"max_new_tokens": 10, "temperature": 1.5, "decode_batch": 12}
    drawn = opened.writer(DecodeConfig(method="sample", n_best=4, **options)).write(examples)
    reward = RewardConfig(rewards="grounding=0.1,repetition=2")
    run = rewards.choosing(opened, "best", reward)
    best = run.writer(DecodeConfig(method="best", candidates=4, **options)).write(examples)
    judge = Rewards(reward, opened.dataset())
    for example, texts, (chosen,) in zip(examples, drawn, best, strict=True):
        liked = judge([example] * len(texts), texts) @ [0.1, 2.0]
        assert len(set(texts)) > 1 and chosen == texts[int(np.argmax(liked))]
    with pytest.raises(UserError, match="--method=best chooses by --rewards"):
        opened.writer(DecodeConfig(method="best"))
    with pytest.raises(UserError, match="--rewards is missing"):
        rewards.choosing(opened, "best", RewardConfig())
    with pytest.raises(UserError, match="chooses nothing with --method=greedy"):
        rewards.choosing(opened, "greedy", reward)
