"""The benchmark on real texts: how they are split and cut, what counts, and a run that goes on where it was interrupted."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import launched
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from rgjax.config import AdversarialConfig, BenchConfig, CaptionsConfig, DiscriminatorConfig
from rgjax.errors import UserError
from rgjax.models.build import ModelFactory
from rgjax.models.lstm import LSTM, LSTMConfig
from rgjax.tasks.text_gans import captions, captions_report
from rgjax.tasks.text_gans.captions import END, UNKNOWN, Bench, Words
from rgjax.tasks.text_gans.unconditional import FixedLength
from rgjax.train.adversarial import Texts
from rgjax.train.reinforce import token_rewards

COLOURS, THINGS, PLACES = "red blue green white black".split(), "cat dog horse bike train boat cup".split(), "street beach lawn table snow".split()
LINES = [f"A {c} {t} on {p}" for c, t, p in itertools.product(COLOURS, THINGS, PLACES)]
LINES += [f"a {t}, {p}." for t, p in itertools.product(THINGS, PLACES)]
SMALL, TEXTS = BenchConfig(rows="mle", seeds=1, mle_epochs=2, rounds=20), CaptionsConfig(caption_width=8)
GAN, JUDGE = AdversarialConfig(d_steps=1, d_warmup=0, completions=1), DiscriminatorConfig(d_width=4, d_filters=2, d_windows="2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two files of 210 different captions, some of which stand there twice but for their case."""
    path = tmp_path_factory.mktemp("captions")
    (path / "a.txt").write_text("\n".join(LINES[:150]) + "\n\n", encoding="utf-8")
    (path / "b.txt").write_text("\n".join(line.upper() for line in LINES[100:]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bench(folder):
    return Bench(SMALL, GAN, JUDGE, TEXTS, captions.split(captions.read(str(folder))))


def test_texts_are_merged_and_split_without_overlap(folder):
    texts = captions.read(str(folder))
    assert len(texts) == len(LINES) and texts[0] == ("a", "red", "cat", "on", "street") and texts[-1] == ("a", "cup", ",", "snow", ".")
    assert captions.read(f"{folder}/a.txt, {folder}/b.txt") == texts
    parts = captions.split(texts)
    assert [len(part) for part in parts] == [168, 21, 21] and set().union(*parts) == set(texts)
    order = np.random.default_rng(0).permutation(210)
    assert parts == captions.split(texts) and [*parts.val, *parts.test, *parts.train] == [texts[i] for i in order]
    assert [len(part) for part in captions.split(range(20_000))] == [18_000, 1000, 1000]


@pytest.mark.parametrize("content, message", [
    (None, "no file"), ([], "no .txt"), ([b""], "0 different"), ([b"a b\n" * 300], "1 different"), ([b"\xff\xfe a"], "UTF-8"),
])  # fmt: skip
def test_what_is_no_text_is_refused(tmp_path, content, message):
    for i, one in enumerate(content or []):
        (tmp_path / f"{i}.txt").write_bytes(one)
    with pytest.raises(UserError, match=message):
        captions.read(str(tmp_path / "missing" if content is None else tmp_path))


@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8), st.integers(2, 8))
def test_words_come_back_as_they_were(texts, most):
    words = Words(texts, most)
    rows_NT = words.encode(texts)
    assert words.length == rows_NT.shape[1] == min(most, 1 + max(map(len, texts)))
    assert words.decode(rows_NT) == [text[: words.length] for text in texts] and UNKNOWN not in rows_NT
    assert words.encode([("a", "new", "b")])[0, 1] == UNKNOWN or words.length < 2


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_text_goes_to_its_first_end(rows):
    found = FixedLength(1, 5, ends=True).texts(jnp.asarray(rows))
    for row, tokens, mask in zip(rows, *map(np.asarray, found), strict=True):
        size = row.index(END) + 1 if END in row else 5
        assert mask.tolist() == [1] * size + [0] * (5 - size) and tokens.tolist() == row[:size] + [END] * (5 - size)


def test_likelihood_is_that_of_the_texts_without_padding_or_unknown_words(bench):
    params = jax.tree.map(lambda a: 5 * a, bench.factory.fresh(jax.random.key(1)))
    texts = [("a", "violet", "dog"), ("a", "cat", "on")]
    log_probs, total, count = jax.jit(bench.factory.model(params).log_probs), 0.0, 0
    for text in texts:
        ids = [bench.words.ids.get(word, UNKNOWN) for word in text] + [END]
        known = np.array(ids) != UNKNOWN
        total -= float(np.sum(log_probs(jnp.asarray([ids]))[0] * known))
        count += known.sum()
    rows_NT = bench.words.encode(texts)
    assert bench.score(params, jnp.asarray(rows_NT)) == pytest.approx(total / count, rel=1e-5)
    rows_NT[1, 4:] = 7  # beyond the end
    assert bench.score(params, jnp.asarray(rows_NT)) == pytest.approx(total / count, rel=1e-5)


def test_completions_are_judged_to_their_end(bench):
    """By a judge that returns a text's length: a beginning that has ended is completed by nothing."""
    writing, model = FixedLength(3, 4, ends=True), bench.factory.model(bench.factory.fresh(jax.random.key(0)))
    texts = writing.texts(jnp.asarray([[5, END, 6, 6], [5, 6, 7, END], [5, 6, 7, 8]]))
    completed = writing.completions(model, jax.random.key(1), {}, texts, 2, 1)
    assert isinstance(completed, Texts) and completed.mask.shape == (3, 2, 3, 4)
    found = np.asarray(token_rewards(lambda tokens, mask: mask.sum(1).astype(jnp.float32), texts, completed))
    np.testing.assert_array_equal(found[0, 1:], 2.0)
    assert found[:, -1].tolist() == [2.0, 4.0, 4.0] and (found[1:, 1] >= 3).all()


def test_relaxed_texts_learn_where_to_end():
    """Told that longer is better, or worse, the bias of the end token moves: by the size of the texts alone, whatever their tokens."""
    factory, writing = ModelFactory(LSTMConfig(3, 3), 4, LSTM), FixedLength(64, 4, ends=True)
    params = factory.fresh(jax.random.key(0))

    def size(params):
        rows_BTV, mask_BT = writing.relaxed(factory.model(params), jax.random.key(1), {}, 1.0)
        return jnp.mean(rows_BTV.sum((1, 2))), (rows_BTV, mask_BT)

    grads, (rows_BTV, mask_BT) = jax.jit(jax.grad(size, has_aux=True))(params)
    np.testing.assert_allclose(rows_BTV.sum(2), mask_BT, atol=1e-5)
    assert 1.5 < mask_BT.sum(1).mean() < 3.8 and grads["b_vocab"][END] < -0.1 and min(grads["b_vocab"][1:]) > 0


def test_an_adversarial_row_trains(bench):
    tuned, noticed = bench.tuned("gumbel_relativistic", 0, bench.factory.fresh(jax.random.key(0)))
    assert set(bench.measured(tuned, 0)) == set(captions_report.COLUMNS) and noticed["metrics"]["grad_norm"] > 0
    assert 1 <= noticed["metrics"]["written_tokens"] < bench.length


def test_real_texts_score_as_by_nltk(bench):
    split, smooth = bench.split, SmoothingFunction().method1
    for order in (2, 5):
        of = lambda text, others, order=order: sentence_bleu(others, text, [1 / order] * order, smoothing_function=smooth)
        assert bench.real[f"bleu_{order}"] == pytest.approx(np.mean([of(text, split.test) for text in split.val]))
        others = [of(text, split.val[:i] + split.val[i + 1 :]) for i, text in enumerate(split.val)]
        assert bench.real[f"self_bleu_{order}"] == pytest.approx(np.mean(others))
    moved = {name: value + 0.1 for name, value in bench.real.items()}
    assert captions.distance(moved, bench.real) == pytest.approx(0.1 * 8**0.5) and captions.distance(bench.real, bench.real) == 0


def test_figures_of_captions_are_kept(folder, tmp_path, monkeypatch):
    run = lambda config, texts=TEXTS, where=tmp_path / "out": captions_report.evaluate(
        config, GAN, JUDGE, dataclasses.replace(texts, captions=str(folder)), str(where), lambda done, total: None
    )
    first, table = run(SMALL)
    assert list(first)[:3] == ["REAL", "TRAIN", "mle"] and first["REAL"]["distance"] == 0 < first["TRAIN"]["distance"]
    assert "nll_test" not in first["REAL"] and table.splitlines()[2].startswith("REAL") and table.splitlines()[2].endswith("-")
    assert json.loads((tmp_path / "out/captions.json").read_text())["real"]["REAL"] == first["REAL"]
    monkeypatch.setattr(Bench, "learned", lambda *_: pytest.fail("learned again"))
    more, _ = run(dataclasses.replace(SMALL, rows="mle,mle@0.5"))
    assert more["mle"] == first["mle"] and more["mle@0.5"]["nll_test"] > 0
    with pytest.raises(UserError, match="--completions_every=30 completes nothing of texts of 1?[0-9] tokens"):  # shorter than --caption_length
        captions_report.evaluate(
            dataclasses.replace(SMALL, rows="mle,reinforce"), dataclasses.replace(GAN, completions=2, completions_every=30), JUDGE,
            dataclasses.replace(TEXTS, captions=str(folder), caption_length=40), "", lambda done, total: None,
        )  # fmt: skip
    with pytest.raises(UserError, match="--caption_width"):
        run(SMALL, dataclasses.replace(TEXTS, caption_width=9))
    (tmp_path / "oracle.json").write_text("{}")
    with pytest.raises(UserError, match="oracle.json"):
        run(SMALL, where=tmp_path)


def test_the_command_on_captions(folder):
    small = ["--caption_width=4", "--mle_epochs=1", "--seeds=1", "--rows=mle,mle@0.8"]
    done = launched.run("launch.evaluate", ["--flagfile=configs/captions.cfg", f"--captions={folder}", *small])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sizes"] == {"train": 168, "val": 21, "test": 21} and {"REAL", "TRAIN", "mle", "mle@0.8"} <= set(found)
    for flags in ([f"--captions={folder}", "--oracle=drawn"], ["--caption_width=8"]):
        refused = launched.run("launch.evaluate", flags)
        assert refused.returncode == 2 and "--captions" in refused.stderr and len(refused.stderr.splitlines()) == 1
